from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import BagConfig, BagsConfig, RunConfig, ScheduleConfig, load_config, to_yaml
from boom_ray.config.schedule import USED
from boom_ray.errors import ConfigError
from boom_ray.hashing import digest

RUN = {
    "name": "run",
    "corpus": {
        "datasets": [
            {"name": "a", "source": "a.jsonl", "task_type": "retrieval"},
            {"name": "b", "source": "b.jsonl", "task_type": "sts"},
        ]
    },
}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN))
    return path


def test_the_kind_alone_may_be_given(file):
    for kind in (*USED, "batch-level-shuffling", "example-mixing"):
        short = load_config(RunConfig, file, [f"bags.schedule={kind}"])
        long = load_config(RunConfig, file, [f"bags.schedule={{kind: {kind}}}"])
        assert short.bags.schedule == long.bags.schedule == ScheduleConfig(kind=kind)


def test_what_is_printed_is_read_again(file, tmp_path):
    stages = "{kind: two-stage, stages: [{name: x, task_types: [sts], learning_rate: 0.001}]}"
    config = load_config(
        RunConfig, file, [f"bags.schedule={stages}", "bags.members=[{name: m, ratio: 1, datasets: [a]}]"]
    )
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(RunConfig, tmp_path / "again.yaml") == config


def test_identities_of_configurations_without_schedules_are_those_of_earlier_versions(file):
    """The key of a run in MLflow is the hash of its identity."""
    members = "bags.members=[{name: x, ratio: 0.5}, {name: y, complement_of: x}, {name: z, ratio: 1.0}]"
    config = load_config(RunConfig, file, [members])
    assert digest(config.bags.identity()) == "35598fc3518d92864987e1b30ec2058e"
    assert BagsConfig().identity()["schedule"] == "batch-level-shuffling"
    assert "datasets" not in BagConfig(name="x", ratio=0.5).identity()


def test_a_schedule_and_the_datasets_of_a_bag_are_in_the_identity():
    assert BagConfig(name="x", ratio=0.5, datasets=("a",)).identity()["datasets"] == ["a"]
    assert BagsConfig(schedule="round-robin").identity()["schedule"] == {
        "kind": "round-robin",
        "order": "name",
        "names": [],
    }
    assert ScheduleConfig(kind="temperature-proportional").identity() == {
        "kind": "temperature-proportional",
        "temperature": 2.0,
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("bags.schedule=shuffled", "bags.schedule.kind: Input should be 'batch-level-shuffling', "),
        ("bags.schedule=3", "bags.schedule: Input should be a valid dictionary"),
        ("bags.schedule.kid=two-stage", "bags.schedule.kid: unknown key; did you mean kind?"),
        ("bags.schedule={order: random}", "bags.schedule.order: has no effect with kind batch-level-shuffling; remove"),
        (
            "bags.schedule={kind: two-stage, temperature: 3}",
            "bags.schedule.temperature: has no effect with kind two-st",
        ),
        ("bags.schedule={kind: round-robin, stages: [{name: x}]}", "bags.schedule.stages: has no effect"),
        (
            "bags.schedule={kind: round-robin, order: given}",
            "bags.schedule.names: give names together with order: given",
        ),
        ("bags.schedule={kind: round-robin, names: [a, b]}", "bags.schedule.names: give names together with order"),
        ("bags.schedule={kind: round-robin, order: given, names: [a, b, a]}", "bags.schedule.names: every name once"),
        (
            "bags.schedule={kind: round-robin, order: given, names: [a]}",
            "bags.schedule.names lacks b; give all datasets",
        ),
        (
            "bags.schedule={kind: round-robin, order: given, names: [a, b, c]}",
            "bags.schedule.names has c, which is none of the datasets ['a', 'b']",
        ),
        (
            "bags.schedule={kind: task-sequential, order: given, names: [sts, pair]}",
            "bags.schedule.names lacks retrieval; give all task types: ['retrieval', 'sts']",
        ),
        (
            "bags.schedule={kind: task-sequential, order: given, names: [sts, a]}",
            "bags.schedule.names has a, which is none of the task types ['retrieval', ",
        ),
        (
            "bags.schedule={kind: two-stage, stages: [{name: x, datasets: [c]}]}",
            "bags.schedule.stages: stage x names c, which is none of the datasets ['a', 'b']",
        ),
        (
            "bags.schedule={kind: two-stage, stages: [{name: x, task_types: [pair, bitext]}]}",
            "bags.schedule.stages: stage x is empty, for no dataset is of task type pair or bitext; give other stages",
        ),
        ("bags.schedule={kind: two-stage, stages: [{name: x}, {name: x}]}", "bags.schedule.stages: every name once"),
        (
            "bags.schedule={kind: two-stage, stages: [{name: x, share: 0}]}",
            "bags.schedule.stages.0.share: Input should be greater than 0",
        ),
        (
            "bags.schedule={kind: temperature-proportional, temperature: 0.5}",
            "bags.schedule.temperature: Input should be",
        ),
        (
            "bags.members=[{name: m, ratio: 1, datasets: [c]}]",
            "bags.members: bag m names c, which is none of the datasets",
        ),
        ("bags.members=[{name: m, ratio: 1, datasets: [a, a]}]", "bag m: a dataset may be named once only (got a, a)"),
        (
            "bags.members=[{name: m, ratio: 1}, {name: n, complement_of: m, datasets: [a]}]",
            "bag n: a complement has the datasets of the bag that it completes",
        ),
        (
            "bags.members=[{name: m, ratio: 1, datasets: [a, b]}, {name: n, ratio: 1, datasets: [b, a]}]",
            "bags m and n are the same draw",
        ),
    ],
)
def test_faults_name_their_key(file, override, expected):
    with pytest.raises(ConfigError) as error:
        load_config(RunConfig, file, [override])
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 2, "one fault, one line"


def test_the_usual_stages_need_data_for_retrieval(tmp_path):
    only = {"name": "b", "source": "b.jsonl", "task_type": "sts"}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN | {"corpus": {"datasets": [only]}, "bags": {"schedule": "two-stage"}}))
    with pytest.raises(ConfigError, match="stage retrieval is empty, for no dataset is of task type retrieval or rer"):
        load_config(RunConfig, path)


@pytest.mark.parametrize("kind", ["two-stage", "dataset-sequential", "example-mixing"])
def test_branches_need_first_steps_that_are_a_sample_of_all(file, kind):
    branches = "{branches: true, decay: wsd, warmup_updates: 2}"
    overrides = [f"bags.schedule={kind}", f"training={branches}"]
    if kind == "example-mixing":
        assert load_config(RunConfig, file, overrides).training.branches
        return
    with pytest.raises(ConfigError, match=rf"takes the first steps .* bags.schedule={kind} are not"):
        load_config(RunConfig, file, overrides)


def test_bags_of_different_datasets_are_different_draws(file):
    def experts(**more: Any) -> str:
        return yaml.safe_dump([{"name": f"only-{name}", "ratio": 1.0, "datasets": [name], **more} for name in "ab"])

    config = load_config(RunConfig, file, [f"bags.members={experts()}"])
    assert [bag.datasets for bag in config.bags.resolved()] == [("a",), ("b",)]
