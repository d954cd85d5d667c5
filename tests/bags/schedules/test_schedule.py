from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.plan import share
from boom_ray.bags.schedules import Schedule, StageRule, batch_level_shuffling, schedule_of
from boom_ray.config import DatasetConfig, ScheduleConfig
from boom_ray.config.schedule import PLAIN
from tests.bags.plans import TASKS, ids_of, sizes, supply, uses

DATASETS = [DatasetConfig(name=name, source="-", task_type=task) for name, task in TASKS.items()]
CONFIGS = [
    {"kind": PLAIN},
    *(
        {"kind": kind, "order": order}
        for kind in ("dataset-sequential", "task-sequential")
        for order in ("name", "random")
    ),
    {"kind": "dataset-sequential", "order": "given", "names": ["d", "b", "a", "c"]},
    {"kind": "task-sequential", "order": "given", "names": ["sts", "clustering", "bitext", "retrieval"]},
    {"kind": "two-stage"},
    {"kind": "two-stage", "stages": [{"name": "x", "datasets": ["b"], "share": 0.5}, {"name": "y", "epochs": 2}]},
    {"kind": "example-mixing"},
    {"kind": "round-robin", "order": "size-descending"},
    {"kind": "temperature-proportional", "temperature": 3.0},
]
SCHEDULES = [schedule_of(ScheduleConfig.model_validate(config), DATASETS, 2) for config in CONFIGS]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: f"{one.kind}-{one.order}")


def plan_of(schedule: Schedule, sizes: dict[str, int], batch: int, seed: int):
    return schedule.plan(supply(sizes, batch).rows, ids_of(sizes), batch, 2, seed)


@each_schedule
@settings(deadline=None, max_examples=50)
@given(sizes=sizes, batch=st.integers(1, 8), seed=st.integers(0, 99))
def test_steps_are_full_and_no_pass_has_an_example_twice(schedule, sizes, batch, seed):
    plan = plan_of(schedule, sizes, batch, seed)
    assert plan.offsets[-1] == len(plan.rows) == len(plan) * batch
    assert (np.diff(plan.offsets) > 0).all()
    assert set(uses(plan).values()) <= {1}
    assert sum(stage.steps for stage in plan.stages) == (len(plan) if plan.stages else 0)
    again = plan_of(schedule, dict(sorted(sizes.items(), reverse=True)), batch, seed)
    for name, array in plan.arrays().items():
        assert array.tobytes() == again.arrays()[name].tobytes()
        assert array.dtype == again.arrays()[name].dtype == (np.int32 if name in {"dataset", "epoch"} else np.int64)


@each_schedule
def test_order_follows_ids_not_rows(schedule):
    sizes = {"a": 40, "b": 33, "c": 25, "d": 17}
    ids, shuffled = ids_of(sizes), {}
    for name, values in ids.items():
        order = list(range(len(values)))
        random.Random(4).shuffle(order)
        shuffled[name] = values[order]
    rows = supply(sizes, 4).rows
    one, other = schedule.plan(rows, ids, 4, 2, 6), schedule.plan(rows, shuffled, 4, 2, 6)
    assert len(one) > 20
    for index in range(len(one)):
        for part, same in zip(one.parts(index), other.parts(index), strict=True):
            assert (part.dataset, part.epoch) == (same.dataset, same.epoch)
            assert ids[part.dataset][part.rows].tolist() == shuffled[part.dataset][same.rows].tolist()


@each_schedule
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_slices_of_all_ranks_are_the_step(schedule, workers):
    plan = plan_of(schedule, {"a": 40, "b": 33, "d": 17}, 8, 1)
    for index in range(len(plan)):
        rows = np.concatenate([part.rows for part in plan.parts(index)])
        slices = [rows[share(len(rows), rank, workers)] for rank in range(workers)]
        assert np.concatenate(slices).tolist() == rows.tolist()


@each_schedule
def test_a_bag_without_a_single_full_batch_has_no_steps(schedule):
    plan = plan_of(schedule, {"a": 3, "b": 0, "d": 2}, 6, 1)
    assert len(plan) == 0
    assert plan.stages == ()


def test_schedules_differ_in_their_identity_which_is_json():
    identities = [json.dumps(one.identity(), sort_keys=True) for one in SCHEDULES]
    assert len(set(identities)) == len(SCHEDULES)
    assert Schedule().identity() == SCHEDULES[0].identity() == "batch-level-shuffling"
    assert SCHEDULES[5].identity() == {"kind": "dataset-sequential", "order": "given", "names": ("d", "b", "a", "c")}
    assert SCHEDULES[-1].identity() == {"kind": "temperature-proportional", "temperature": 3.0}
    assert SCHEDULES[-3].identity() == {"kind": "example-mixing"}
    assert schedule_of(ScheduleConfig(kind="task-sequential"), DATASETS, 1).identity()["tasks"] == TASKS


def test_what_decides_a_stage_is_in_the_identity():
    one = Schedule("two-stage", stages=(StageRule("x", ("a",), 1),))
    others = [StageRule("y", ("a",), 1), StageRule("x", ("b",), 1), StageRule("x", ("a",), 2)]
    others += [StageRule("x", ("a",), 1, 1e-3), StageRule("x", ("a",), 1, None, 0.5)]
    made = [one.identity(), *(replace(one, stages=(stage,)).identity() for stage in others)]
    assert len({json.dumps(identity) for identity in made}) == 1 + len(others)


def test_two_stages_are_first_retrieval_then_everything():
    usual = schedule_of(ScheduleConfig(kind="two-stage"), DATASETS, 3)
    assert usual.stages == (StageRule("retrieval", ("a", "c"), 3), StageRule("all", ("a", "b", "c", "d"), 3))


def test_a_bag_of_some_datasets_has_its_part_of_the_schedule():
    held = [one for one in DATASETS if one.name in "bd"]
    assert schedule_of(ScheduleConfig(kind="two-stage"), held, 3).stages == (StageRule("all", ("b", "d"), 3),)
    given = ScheduleConfig(kind="dataset-sequential", order="given", names=("d", "b", "a", "c"))
    assert schedule_of(given, held, 1).names == ("d", "b")
    assert schedule_of(ScheduleConfig(kind="task-sequential"), held, 1).tasks == {"b": "sts", "d": "clustering"}


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(1, 8), st.integers(0, 99))
def test_the_default_is_batch_level_shuffling(sizes, batch, seed):
    bag = supply(sizes, batch)
    plain = batch_level_shuffling(bag.rows, bag.ids, batch, 2, seed)
    for name, array in Schedule().plan(bag.rows, bag.ids, batch, 2, seed).arrays().items():
        assert array.tobytes() == plain.arrays()[name].tobytes()


def test_task_sizes_are_those_of_their_datasets():
    schedule = schedule_of(ScheduleConfig(kind="task-sequential", order="size-descending"), DATASETS, 1)
    plan = plan_of(schedule, {"a": 30, "b": 40, "c": 30, "d": 10}, 2, 0)
    order = [TASKS[plan.step(index).dataset] for index in range(len(plan))]
    assert list(dict.fromkeys(order)) == ["retrieval", "sts", "clustering"]
