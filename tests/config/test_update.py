"""The configuration of jobs/update.py: faults, and the ready-made files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import RunConfig, UpdateConfig, load_config, to_yaml
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf" / "updates"
DATASET = {"name": "a", "source": "a.jsonl", "task_type": "retrieval"}


def config(**changes: Any) -> UpdateConfig:
    return validate(UpdateConfig, {"name": "x", "current": "y", "corpus": {"datasets": [DATASET]}, **changes}, "test")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"current": ""}, "current: "),
        ({"current": "x"}, "name: an update needs a name of its own"),
        ({"name": "before"}, "name: before stands for something else"),
        ({"name": "full-retraining"}, "name: full-retraining stands for something else"),
        ({"corpus": {"datasets": []}}, "corpus.datasets: "),
        ({"corpus": {"datasets": [DATASET, DATASET]}}, "corpus.datasets: names must be unique; used twice: a"),
        ({"corpus": {"datasets": [DATASET], "embeded": {}}}, "corpus.embeded: unknown key"),
        ({"merge": {"weights": [1, 2, 3]}}, "merge.weights: two models are merged.*got 3 numbers"),
        ({"merge": {"method": "tys"}}, "there is no method tys"),
        ({"bags": {"core_ratio": 0.5}}, "bags: unknown key"),
        ({"evaluation": {"precision": "bfloat16"}}, "evaluation.precision: unknown key"),
    ],
)
def test_faults_name_their_key(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(**changes)


def test_as_many_weights_as_members_are_allowed_when_all_are_merged_again() -> None:
    assert config(from_members=True, merge={"weights": [1, 2, 3]}).merge.weights == (1, 2, 3)


def test_only_what_is_given_changes_the_run() -> None:
    plain = config()
    assert plain.corpus.changes() == {} and plain.evaluation.settings() == {}
    given = {"datasets": [DATASET], "max_negatives": 0, "decontaminate": False, "near_duplicates": {}}
    found = config(corpus=given, evaluation={"actors": 3}).corpus.changes()
    assert found["max_negatives"] == 0 and found["decontaminate"] is False
    assert found["near_duplicates"]["threshold"] == 0.8
    assert config(evaluation={"actors": 3}).evaluation.settings() == {"actors": 3}


def test_the_whole_configuration_as_yaml_is_the_same_configuration(tmp_path: Path) -> None:
    one = config(training={"learning_rate": 1e-5}, from_members=True)
    (tmp_path / "x.yaml").write_text(to_yaml(one), encoding="utf-8")
    assert load_config(UpdateConfig, tmp_path / "x.yaml") == one


def test_how_it_runs_is_in_no_identity() -> None:
    assert config(evaluation={"actors": 3}, dry_run=True).identity() == config().identity()


def test_the_ready_made_update_brings_what_its_run_lacks() -> None:
    run = load_config(RunConfig, CONF / "quickstart_run.yaml")
    whole = load_config(RunConfig, CONF.parent / "quickstart.yaml")
    update = load_config(UpdateConfig, CONF / "quickstart.yaml")
    assert update.current == run.name != whole.name
    old, new = run.corpus.datasets, update.corpus.datasets
    assert {one.name for one in (*old, *new)} == {one.name for one in whole.corpus.datasets}
    assert {*old, *new} == {*whole.corpus.datasets} and not {*old} & {*new}
    assert {task.name for task in run.evaluation.tasks} == {task.name for task in whole.evaluation.tasks}
    assert {task.name for task in update.evaluation.in_domain} == {one.name for one in new}
    for path in CONF.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("#") and yaml.safe_load(text)["name"]
