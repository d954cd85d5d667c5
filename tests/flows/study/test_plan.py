"""Arms as runs, and what they would cost; nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import StudyConfig, load_config
from boom_ray.errors import ConfigError, MergeError
from boom_ray.flows.study.outlook import arm_parts, outlook_lines
from boom_ray.flows.study.plan import ArmRun, arm_config, arm_runs, check_arms, whole
from tests.tiny_study import ARMS, write_study

TRUNK = {"decay": "wsd", "decay_ratio": 0.2, "warmup_updates": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("study")


def study(folder: Path, *arms: dict[str, Any], **changes: Any) -> StudyConfig:
    own = [{"name": "plain", "set": {"bags.ratios": [1.0]}}, *arms]
    return load_config(StudyConfig, write_study(folder, own, **changes))


def run(config: StudyConfig, name: str, seed: int = 0, clusters=()) -> ArmRun:
    arm = next(arm for arm in config.study.arms if arm.name == name)
    return ArmRun(arm, seed, arm_config(config, arm, seed, clusters))


def test_an_arm_is_the_run_with_its_values_in_their_places(folder):
    changes = {"bags.ratios": [0.3, 0.6], "training": {"epochs": 1.8}, "merge.method": "linear", "bags.nested": True}
    config = study(folder, {"name": "arm", "set": changes})
    found = run(config, "arm", seed=7)
    assert (found.name, found.seed, found.bags) == ("arm.s7", 7, ("bag-30", "bag-60"))
    expected = config.model_dump(include=set(type(found.config).model_fields))
    expected["bags"] |= {"ratios": (0.3, 0.6), "nested": True}
    expected["training"]["epochs"] = 1.8
    expected["merge"]["method"] = "linear"
    assert found.config.model_dump() == expected | {"seed": 7, "baseline": False}
    assert found.is_merged
    assert not run(config, "plain").is_merged


def test_seeds_come_one_after_the_other_each_with_all_arms(folder):
    config = study(folder, {"name": "tasks", "members": "task_type"}, seeds=(3, 5))
    assert [one.name for one in arm_runs(config, {})] == ["plain.s3", "tasks.s3", "plain.s5", "tasks.s5"]
    assert {one.config.seed for one in arm_runs(config, {}) if one.seed == 5} == {5}


def test_granularities_become_bags_of_whole_datasets(folder):
    arms = [{"name": kind, "members": kind} for kind in ("dataset", "task_type", "cluster")]
    config = study(folder, *arms)
    assert run(config, "dataset").bags == ("dataset-pairs", "dataset-topics")
    assert run(config, "task_type").bags == ("task-retrieval", "task-classification")
    found = run(config, "cluster", clusters=[("topics",), ("pairs",)])
    assert {bag.name: bag.datasets for bag in found.config.bags.resolved()} == {
        "cluster-1": ("topics",), "cluster-2": ("pairs",),
    }  # fmt: skip


def test_a_trunk_trains_branches(folder):
    config = study(folder, {"name": "trunk", "trunk": True, "set": {"bags.ratios": [0.5, 1.0], "training": TRUNK}})
    check_arms(config)
    found = run(config, "trunk").config
    assert found.training.branches
    assert whole(found).bags.resolved()[0].ratio == 1.0
    assert len(whole(found).bags.resolved()) == 1


@pytest.mark.parametrize(
    ("arm", "error", "text"),
    [
        ({"set": {"training.epoch": 2}}, ConfigError, "Arm arm:\n  training.epoch: unknown key"),
        ({"set": {"training.epochs": 0}}, ConfigError, "training.epochs: Input should be greater than 0"),
        ({"set": {"merge.method": "slerp", "bags.ratios": [0.2, 0.3, 0.5]}}, MergeError, "Arm arm: slerp merges"),
        ({"set": {"merge.method": "greedy_soup"}}, ConfigError, r"Arm arm: .*give evaluation\.selection"),
        ({"set": {"bags.ratios": [0.5, 0.5], "merge.weights": [1, 2, 3]}}, ConfigError, "3 numbers for 2 bags"),
        ({"trunk": True, "set": {"training.decay": "wsd"}}, ConfigError, "warmup_updates: must be set with branches"),
        ({"trunk": True, "set": {"training": TRUNK, "bags.ratios": [0.5, 0.5]}}, ConfigError, "in their ratios only"),
        ({"trunk": True, "set": {"training": TRUNK, "bags.schedule": "two-stage"}}, ConfigError, "branches=true takes"),
    ],
)  # fmt: skip
def test_arms_that_cannot_be_are_said_before_anything_is_started(folder, arm, error, text):
    config = study(folder, {"name": "arm", **arm}, evaluation={"selection": []})
    with pytest.raises(error, match=text):
        check_arms(config)


def test_all_kinds_of_arms_pass(folder):
    check_arms(load_config(StudyConfig, write_study(folder)))


def test_a_recipe_of_one_member_or_of_the_best_is_not_looked_at(folder):
    slerp = {"merge.method": "slerp", "bags.ratios": [0.2, 0.3, 1.0]}
    check_arms(study(folder, {"name": "arm", "product": "best_member", "set": slerp}))
    check_arms(study(folder, {"name": "arm", "set": slerp | {"bags.ratios": [1.0]}}))


def test_parts_say_what_is_shared_and_what_it_costs(folder):
    config = load_config(StudyConfig, write_study(folder))
    (bls,) = arm_parts(run(config, "bls"))
    boom, soup = arm_parts(run(config, "boom")), arm_parts(run(config, "soup"))
    assert boom == soup
    assert bls in boom
    assert [part.runs for part in boom] == [0.5, 1.0]
    assert bls.key not in {part.key for part in arm_parts(run(config, "boom", seed=1))}
    tasks = arm_parts(run(config, "task-merge"))
    clusters = arm_parts(run(config, "cluster-merge", clusters=[("pairs",), ("topics",)]))
    assert tasks == clusters
    assert sum(part.runs for part in tasks) == 1
    trunk, *branches = arm_parts(run(config, "trunk"))
    assert (trunk.is_trunk, trunk.runs) == (True, pytest.approx(0.8))
    assert [part.runs for part in branches] == pytest.approx([0.1, 0.2])


def test_stages_and_passes_count(folder):
    stages = {"bags.schedule": "two-stage", "bags.ratios": [1.0]}
    more = {"training.epochs": 1.8, "bags.ratios": [0.5, 1.0]}
    config = study(folder, {"name": "stages", "set": stages}, {"name": "more", "set": more})
    assert [part.runs for part in arm_parts(run(config, "stages"))] == [1.5]  # one of two datasets is of retrieval
    assert [part.runs for part in arm_parts(run(config, "more"))] == pytest.approx([0.9, 1.8])
    keys = {part.key for name in ("plain", "stages", "more") for part in arm_parts(run(config, name))}
    assert len(keys) == 4


def test_the_outlook_counts_members_once(folder):
    config = load_config(StudyConfig, write_study(folder))
    text = "\n".join(outlook_lines(config))
    assert "7, each with 2 seeds; the baseline is bls" in text
    assert "12 distinct ones for the 26 that all arms need" in text
    assert "about 7.20 full runs (one pass over all data each); 17.20 if every arm trained its own" in text
    assert "for cluster-merge 3 trainings of 2 steps per dataset, 8 steps of 8 in all" in text
    assert "14 models and the base, 2 tasks" in text
    for arm in ARMS:
        assert f"\n{arm['name']} " in text


def test_clusters_that_several_arms_look_for_are_told_once(folder):
    arms = [
        {"name": "few", "members": "cluster", "clusters": {"count": 2, "steps": 2}},
        {"name": "sized", "members": "cluster", "clusters": {"count": 3, "steps": 2}, "set": {"merge.weights": "size"}},
        {"name": "longer", "members": "cluster", "clusters": {"count": 2, "steps": 3}},
        {"name": "slower", "members": "cluster", "clusters": {"steps": 2}, "set": {"training.learning_rate": 0.5}},
    ]
    told = [line.split() for line in outlook_lines(study(folder, *arms)) if line.startswith("synergy")]
    assert [line[2:4] for line in told] == [["few,", "sized"], ["longer", "3"], ["slower", "3"]]
