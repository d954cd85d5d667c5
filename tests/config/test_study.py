from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boom_ray.config import StudyConfig, load_config
from boom_ray.errors import ConfigError

TASK = {"name": "t", "path": "/t", "type": "sts"}
RUN: dict[str, Any] = {
    "name": "s",
    "corpus": {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "sts"}]},
    "evaluation": {"in_domain": [TASK]},
}


def load(tmp_path: Path, *arms: dict[str, Any], **study: Any) -> StudyConfig:
    own = [{"name": "one"}, *arms]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**RUN, "study": {"arms": own, "baseline": "one", **study}}))
    return load_config(StudyConfig, path)


def fault(tmp_path: Path, *arms: dict[str, Any], **study: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *arms, **study)
    return str(caught.value)


def test_a_study_is_a_run_and_its_arms(tmp_path):
    config = load(tmp_path, {"name": "two", "set": {"training.epochs": 1.8, "bags": {"nested": True}}})
    assert config.study.seeds == (0, 1, 2)
    assert [arm.name for arm in config.study.arms] == ["one", "two"]
    assert config.study.arms[0].members == "bags"
    assert not config.dry_run


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"corpus.max_negatives": 1}, "set.corpus.max_negatives: an arm changes keys below bags, training and merge"),
        ({"seed": 3}, "set.seed: seeds are those of the study"),
        ({"training.resources.workers": 2}, "set.training.resources.workers: is the same for all arms"),
        ({"training": {"scores": {"every": 5}}}, "set.training.scores: is the same for all arms"),
        ({"training": 2}, "set.training: a section takes keys and their values"),
    ],
)
def test_what_an_arm_cannot_change_is_named(tmp_path, own, expected):
    text = fault(tmp_path, {"name": "two", "set": own})
    assert f"study.arms.1.{expected}" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize("own", [{"bags.ratios": [0.5]}, {"bags": {"members": []}}])
def test_members_of_whole_datasets_have_no_ratios(tmp_path, own):
    assert "has no effect with members: dataset" in fault(tmp_path, {"name": "two", "members": "dataset", "set": own})


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({"name": "one"}, "study.arms: each only once"),
        ({"name": "two", "trunk": True, "members": "task_type"}, "study.arms.1.trunk: only bags of different ratios"),
        (
            {"name": "two", "product": "best_member"},
            "study.arms.1.product: best_member chooses by evaluation.selection",
        ),
        ({"name": "a/b"}, "study.arms.1.name"),
        ({"name": "two", "clusters": {"count": 1}}, "study.arms.1.clusters.count"),
    ],
)
def test_arms_that_cannot_be_made_are_refused(tmp_path, arm, expected):
    assert expected in fault(tmp_path, arm)


def test_names_of_arms_must_be_known(tmp_path):
    claim = {"text": "x", "arm": "one", "versus": ["nobody"]}
    assert "study.claims.0.versus: there is no arm nobody; there are one" in fault(tmp_path, claims=[claim])
    assert "study.baseline: there is no arm nobody" in fault(tmp_path, baseline="nobody")
    assert "study.seeds: each only once" in fault(tmp_path, seeds=[1, 1])


def test_without_tasks_there_is_nothing_to_compare(tmp_path):
    path = tmp_path / "study.yaml"
    study = {"arms": [{"name": "one"}], "baseline": "one"}
    path.write_text(yaml.safe_dump({**RUN, "evaluation": {}, "study": study}))
    with pytest.raises(ConfigError, match="names no tasks to compare on"):
        load_config(StudyConfig, path)
