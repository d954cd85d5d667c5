from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.bags.schedules import StageRule, batch_level_shuffling
from boom_ray.bags.schedules.batches import part, passes
from boom_ray.bags.schedules.mixing import example_mixing
from boom_ray.bags.schedules.sequential import dataset_sequential, task_sequential, two_stage
from boom_ray.bags.schedules.shuffled import round_robin, temperature_proportional
from boom_ray.config import TrainingConfig
from tests.bags.plans import TASKS, sizes, steps, supply

SIZES = {"a": 100, "b": 41, "c": 13, "d": 3}
BAG = supply(SIZES, 4, seed=3)  # 25, 10, 3 and no batches
MAKERS = {
    "batch-level-shuffling": lambda epochs: batch_level_shuffling(BAG.rows, BAG.ids, 4, epochs, BAG.seed),
    "dataset-sequential": lambda epochs: dataset_sequential(BAG, "abcd", epochs),
    "task-sequential": lambda epochs: task_sequential(BAG, TASKS, ["retrieval", "sts", "clustering"], epochs),
    "round-robin": lambda epochs: round_robin(BAG, "abcd", epochs),
    "temperature-proportional": lambda epochs: temperature_proportional(BAG, 1.0, epochs),
    "two-stage": lambda epochs: two_stage(BAG, [StageRule("all", tuple("abcd"), epochs)]),
}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [(0, 1.0)]),
        (2.0, [(0, 1.0), (1, 1.0)]),
        (0.5, [(0, 0.5)]),
        (1.8, [(0, 1.0), (1, 0.8)]),
        (2.3, [(0, 1.0), (1, 1.0), (2, 0.3)]),
    ],
)
def test_all_passes_but_the_last_are_whole(epochs, expected):
    assert passes(epochs) == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0.001, 1))
def test_a_share_is_rounded_and_never_nothing(count, share):
    found = part(count, share)
    assert min(count, 1) <= found <= count
    assert abs(found - share * count) <= (0.5 if share * count >= 0.5 else 1)


@each_maker
def test_a_fraction_takes_the_first_share_of_every_dataset_s_batches(make):
    found, whole = steps(make(1.8)), steps(make(2))
    last = [step for step in found if step[1] == 1]
    assert [step for step in found if step[1] == 0] == [step for step in whole if step[1] == 0]
    assert {name: sum(step[0] == name for step in last) for name in "abcd"} == {"a": 20, "b": 8, "c": 2, "d": 0}
    assert all(step in whole for step in last)


@each_maker
def test_what_is_left_out_is_the_end_of_the_pass_of_each_dataset(make):
    short, longer = steps(make(0.4)), steps(make(0.8))
    assert 0 < len(short) < len(longer) < len(steps(make(1)))
    assert all(step in longer for step in short)


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(1, 8), st.integers(0, 99))
def test_mixed_steps_are_the_first_of_the_last_pass(sizes, batch, seed):
    bag = supply(sizes, batch, seed)
    total = sum(sizes.values()) // batch
    plan, whole = example_mixing(bag, 1.5), example_mixing(bag, 2)
    assert len(plan) == total + part(total, 0.5)
    for index in range(len(plan)):
        for own, same in zip(plan.parts(index), whole.parts(index), strict=True):
            assert (own.dataset, own.epoch, own.rows.tolist()) == (same.dataset, same.epoch, same.rows.tolist())


def test_stages_count_the_steps_that_they_have():
    plan = two_stage(BAG, [StageRule("a", ("a",), 0.5), StageRule("all", tuple("abc"), 1.5, share=0.5)])
    assert [stage.steps for stage in plan.stages] == [13, (13 + 5 + 2) + (6 + 3 + 1)]
    assert sorted({step[1] for step in steps(plan)}) == [0, 1, 2]  # passes are counted through all stages


def test_whole_numbers_are_integers_so_that_keys_stay():
    assert repr(TrainingConfig(epochs=2.0).identity()["epochs"]) == "2"
    assert repr(TrainingConfig(epochs=2).identity()["epochs"]) == "2"
    assert TrainingConfig(epochs=1.8).identity()["epochs"] == 1.8
    with pytest.raises(ValueError, match="greater than 0"):
        TrainingConfig(epochs=0)
