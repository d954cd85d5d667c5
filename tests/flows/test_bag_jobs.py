"""Which bags a configuration asks for, under which schedules, and what is said of data that is not trained on."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.bags.sampling import BagRule
from boom_ray.bags.schedules import Schedule, StageRule
from boom_ray.bags.stage import CORE
from boom_ray.config import RunConfig
from boom_ray.flows.members import BASELINE, bag_jobs, is_baseline, is_everything, say_untrained

CORPUS: Any = SimpleNamespace(fingerprint="f", figures={"parts": {}})
DATASETS = [
    {"name": "a", "source": "a.jsonl", "task_type": "retrieval"},
    {"name": "b", "source": "b.jsonl", "task_type": "sts"},
]


def jobs(**bags: Any):
    config = RunConfig.model_validate({"name": "r", "corpus": {"datasets": DATASETS}, "bags": bags})
    return {job.name: job for job in bag_jobs(config, CORPUS)}


def test_keys_and_orders_of_plain_bags_are_those_of_earlier_versions():
    found = {name: (job.key, job.order_seed) for name, job in jobs().items()}
    assert found == {
        "bag-80": ("60b3f864eca6e12e06dcdc60ecd9f496", 326044166298515752),
        "bag-100": ("862995e7e20f83333ddd2483158e925d", 8262548372159245818),
        "core": ("5c24b732a9f2d91b65310c978729e2fa", 8896017211250765331),
    }
    assert jobs(ratios=[0.5])[BASELINE].key == jobs()["bag-100"].key


def test_members_follow_the_schedule_baseline_and_core_do_not():
    found = jobs(ratios=[0.8, 1.0], schedule="two-stage")
    stages = (StageRule("retrieval", ("a",), 1), StageRule("all", ("a", "b"), 1))
    assert found["bag-80"].schedule == found["bag-100"].schedule == Schedule("two-stage", stages=stages)
    assert found[BASELINE].schedule == found[CORE].schedule == Schedule()
    plain = jobs(ratios=[0.8, 1.0])
    assert (found[BASELINE].key, found[CORE].key) == (plain["bag-100"].key, plain[CORE].key)
    assert found["bag-100"].order_seed == plain["bag-100"].order_seed
    assert [name for name, job in found.items() if is_baseline(job)] == [BASELINE]
    assert [name for name, job in plain.items() if is_baseline(job)] == ["bag-100"]


def test_a_core_of_everything_is_no_baseline():
    found = jobs(ratios=[0.8], core_ratio=1.0)
    assert is_everything(found[CORE].rule)
    assert [name for name, job in found.items() if is_baseline(job)] == [BASELINE]


def test_bags_of_some_datasets_have_their_part_of_the_schedule():
    members = [{"name": "only-b", "ratio": 1.0, "datasets": ["b"]}, {"name": "rest", "complement_of": "only-b"}]
    found = jobs(members=members, schedule="two-stage")
    assert found["only-b"].rule == BagRule(1.0, 0, datasets=("b",))
    assert found["only-b"].schedule.stages == found["rest"].schedule.stages == (StageRule("all", ("b",), 1),)
    assert not is_everything(found["only-b"].rule)
    assert BASELINE in found
    whole = jobs(ratios=[1.0])
    assert found["only-b"].order_seed == whole["bag-100"].order_seed  # the same steps, without the other datasets
    assert found["only-b"].key != whole["bag-100"].key


def test_data_that_is_not_trained_on_is_named(caplog):
    def bag(examples: dict[str, int], left_over: dict[str, int]) -> Any:
        return SimpleNamespace(spec={"batch_size": 8}, figures={"examples": examples, "left_over": left_over})

    bags = {
        "plain": bag({"a": 20, "b": 5}, {"a": 4, "b": 5}),
        "staged": bag({"a": 20, "c": 30}, {"a": 4, "c": 30}),
        "mixed": bag({"a": 20, "b": 5}, {"a": 0, "b": 1}),
        CORE: bag({"a": 3}, {"a": 3}),
    }
    with caplog.at_level(logging.WARNING):
        say_untrained(bags)
    assert [record.getMessage() for record in caplog.records] == [
        "Bag plain holds 5 examples of dataset b, fewer than training.batch_size=8: none is trained on.",
        "Bag staged holds 30 examples of dataset c, and bags.schedule none of them: none is trained on.",
    ]


@pytest.mark.parametrize("kind", ["example-mixing", "round-robin"])
def test_a_schedule_makes_other_bags(kind):
    assert jobs(schedule=kind)["bag-80"].key != jobs()["bag-80"].key
