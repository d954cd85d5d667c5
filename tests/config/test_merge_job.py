"""The configuration of jobs/merge.py: forms, faults, and the ready-made files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import MergeJobConfig, ModelConfig, TrainingConfig, load_config, to_yaml
from boom_ray.config.load import validate
from boom_ray.config.merge_job import FolderModelConfig, TrainedLossConfig
from boom_ray.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf" / "merge"
FILES = sorted(CONF.glob("*.yaml"))
DATASET = {"name": "a", "source": "a.jsonl", "task_type": "retrieval", "instruction": "Find it."}


def job(**changes: Any) -> MergeJobConfig:
    return validate(MergeJobConfig, {"name": "x", "members": ["/a", "/b"], **changes}, "test")


def test_a_member_may_be_a_path_alone() -> None:
    config = job(members=["/a", {"path": "/b", "name": "bee", "examples": 7}])
    assert [(one.path, one.name, one.examples) for one in config.members] == [("/a", None, None), ("/b", "bee", 7)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"members": []}, "members: "),
        ({"members": "/a"}, "members: "),
        ({"members": [{"name": "a"}]}, "members.0.path: is required"),
        ({"members": [{"path": "/a", "folder": "/b"}]}, "members.0.folder: unknown key"),
        ({"members": [{"path": "/a", "name": "base"}]}, "the name base stands for something else"),
        ({"members": [{"path": "/a", "name": "x"}, {"path": "/b", "name": "x"}]}, "used twice: x"),
        ({"merge": {"weights": [1, 2, 3]}}, "merge.weights has 3 numbers for 2 members"),
        ({"merge": {"rules": [{"weights": [1]}]}}, "merge.rules.0.weights has 1 numbers for 2 members"),
        ({"merge": {"weights": [0, 0]}}, "weights sum to zero"),
        ({"merge": {"method": "tiess"}}, "there is no method tiess; did you mean ties?"),
        (
            {"merge": {"method": "ties", "parameters": {"densty": 1}}},
            "  merge.parameters.densty: ties has no parameter densty; did you mean density?",
        ),
        (
            {"merge": {"method": "ties", "parameters": {"x": 1}}},
            "  merge.parameters.x: ties has no parameter x; its parameters: scale, density, scope, normalize",
        ),
        (
            {"merge": {"method": "ties", "parameters": {"density": 2}}},
            "  merge.parameters.density: Input should be less than or equal to 1 (got 2)",
        ),
        (
            {"merge": {"method": "ties", "rules": [{"parameters": {"scale": 2}}, {"parameters": {"densty": 1}}]}},
            "  merge.rules.1.parameters.densty: ties has no parameter densty; did you mean density?",
        ),
        (
            {"merge": {"method": "della_ties", "rules": [{"parameters": {"density": 0.1}}]}},
            "  merge.rules.0.parameters: density 0.1 plus and minus epsilon 0.15 must lie between 0 and 1",
        ),
        ({"merge": {"rules": [{"layers": "0-3"}]}}, "merge.rules.0: the rule changes nothing"),
        (
            {"merge": {"rules": [{"layers": "5-3", "weights": "equal"}]}},
            "merge.rules.0.layers: the range 5-3 ends before it begins; write 3-5",
        ),
        ({"merge": {"rules": [{"layers": "x", "weights": "equal"}]}}, "layers are a number or a range, e.g. 7 or 0-5"),
        ({"merge": {"rules": [{"layers": True, "weights": "equal"}]}}, "merge.rules.0.layers: "),
        ({"merge": {"rules": [{"layers": -1, "weights": "equal"}]}}, "layers are a number or a range"),
        ({"model": {"query_template": "no text"}}, "query_template must end with {text}"),
        ({"corpus": {"datasets": [DATASET]}}, "dataset a has an instruction"),
        ({"training": {"temperature": 1}}, "training: unknown key"),
    ],
)
def test_faults_name_their_key(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(**changes)
    assert text in str(caught.value)


@pytest.mark.parametrize(("given", "layers"), [(0, "0"), (11, "11"), ("7", "7"), ("0-0", "0-0"), (None, None)])
def test_a_layer_may_be_a_bare_number(given: Any, layers: str | None) -> None:
    assert job(merge={"rules": [{"layers": given, "weights": "equal"}]}).merge.rules[0].layers == layers


def test_tasks_to_choose_by_are_not_reported() -> None:
    config = job(evaluation={"in_domain": [{"name": "a"}], "selection": [{"name": "b"}]}).evaluation
    assert [task.name for task in config.tasks] == ["a"]
    assert [task.name for task in config.all_tasks] == ["a", "b"]


def test_sections_become_those_of_training() -> None:
    assert FolderModelConfig(pooling="cls").full() == ModelConfig(pooling="cls")
    plain, full = TrainedLossConfig(temperature=0.5, negatives=1), TrainingConfig(temperature=0.5, negatives=1)
    assert plain.full() == full.model_copy(update={"precision": "float32"})


def test_how_it_runs_is_not_what_it_is() -> None:
    one, other = job(), job(dry_run=True, merge={"chunk_mb": 1, "geometry": False, "cpus": 1})
    assert one.identity() == other.identity()
    assert one.identity() != job(base="/c").identity()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ready_made_files_load_and_print_as_they_are(path: Path, tmp_path: Path) -> None:
    config = load_config(MergeJobConfig, path)
    assert path.read_text(encoding="utf-8").startswith("#"), "it says what it is for"
    (tmp_path / "printed.yaml").write_text(to_yaml(config))
    assert load_config(MergeJobConfig, tmp_path / "printed.yaml") == config


def test_the_promised_files_are_there() -> None:
    assert {path.name for path in FILES} >= {"soup.yaml", "ties_rules.yaml", "lora_adapters.yaml", "fisher.yaml"}


def test_what_the_comments_of_soup_promise(tmp_path: Path) -> None:
    overrides = ["members.0.path=/models/a", "merge.method=ties", "merge.parameters.density=0.2"]
    config = load_config(MergeJobConfig, CONF / "soup.yaml", overrides)
    assert (config.members[0].path, config.merge.method, config.merge.parameters) == (
        "/models/a",
        "ties",
        {"density": 0.2},
    )
    config = load_config(MergeJobConfig, CONF / "soup.yaml", ["members=[/models/a,/models/b]", "base=/models/base"])
    assert [one.path for one in config.members] == ["/models/a", "/models/b"] and config.base == "/models/base"
    assert yaml.safe_load((CONF / "soup.yaml").read_text())["name"] == "soup"
