from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Stage
from boom_ray.bags.schedules.sequential import StageRule, dataset_sequential, in_order, task_sequential, two_stage
from boom_ray.bags.schedules.shuffled import batch_level_shuffling
from tests.bags.plans import TASKS, runs, sizes, steps, supply, uses

batches, epochs, seeds = st.integers(1, 8), st.integers(1, 3), st.integers(0, 99)


@settings(deadline=None, max_examples=50)
@given(sizes, batches, epochs, seeds)
def test_datasets_follow_each_other_with_all_their_epochs(sizes, batch, epochs, seed):
    bag = supply(sizes, batch, seed)
    sequence = sorted(sizes, reverse=True)
    found = steps(dataset_sequential(bag, sequence, epochs))
    assert runs([name for name, _, _ in found]) == [name for name in sequence if sizes[name] >= batch]
    for name in sequence:
        own = [step for step in found if step[0] == name]
        assert [epoch for _, epoch, _ in own] == sorted(epoch for _, epoch, _ in own)
    whole = batch_level_shuffling(bag.rows, bag.ids, batch, epochs, seed)
    assert sorted(found) == sorted(steps(whole))  # the same batches in another order


@settings(deadline=None, max_examples=50)
@given(sizes, batches, epochs, seeds, st.permutations(["retrieval", "sts", "clustering"]))
def test_tasks_follow_each_other_and_are_shuffled_inside(sizes, batch, epochs, seed, sequence):
    bag = supply(sizes, batch, seed)
    there = [task for task in sequence if any(TASKS[name] == task for name in sizes)]
    found = steps(task_sequential(bag, TASKS, there, epochs))
    parts = []
    for task in there:
        own = supply({name: size for name, size in sizes.items() if TASKS[name] == task}, batch, seed)
        parts += steps(batch_level_shuffling(own.rows, own.ids, batch, epochs, seed))
    assert found == parts


def test_datasets_of_a_task_alternate():
    found = steps(task_sequential(supply({"a": 160, "b": 80, "c": 160}, 4), TASKS, ["sts", "retrieval"], 1))
    assert [name for name, _, _ in found[:20]] == ["b"] * 20
    assert len(runs([name for name, _, _ in found[20:]])) > 20


def test_orders():
    sizes = {"c": 5, "a": 5, "b": 1, "d": 9}
    assert in_order(sizes, "name", (), 0) == ["a", "b", "c", "d"]
    assert in_order(sizes, "size-ascending", (), 0) == ["b", "a", "c", "d"]
    assert in_order(sizes, "size-descending", (), 0) == ["d", "a", "c", "b"]
    assert in_order(sizes, "given", ("d", "x", "c", "a", "b"), 0) == ["d", "c", "a", "b"]
    drawn = {tuple(in_order(sizes, "random", (), seed)) for seed in range(60)}
    assert len(drawn) > 12
    assert all(sorted(one) == ["a", "b", "c", "d"] for one in drawn)
    assert in_order(sizes, "random", (), 7) == in_order(dict(sorted(sizes.items())), "random", (), 7)


FIRST, ALL = StageRule("first", ("a", "c"), 2, 1e-3), StageRule("all", ("a", "b", "c", "d"), 1)


@settings(deadline=None, max_examples=50)
@given(sizes, batches, seeds)
def test_stages_follow_each_other_and_count_passes_on(sizes, batch, seed):
    plan = two_stage(supply(sizes, batch, seed), [FIRST, ALL])
    counts = {name: size // batch for name, size in sizes.items()}
    ahead = 2 * (counts.get("a", 0) + counts.get("c", 0))
    expected = [Stage("first", ahead, 1e-3), Stage("all", sum(counts.values()))]
    assert plan.stages == tuple(stage for stage in expected if stage.steps)
    assert sum(stage.steps for stage in plan.stages) == len(plan)
    found = steps(plan)
    assert {(name, number) for name, number, _ in found[:ahead]} <= {(n, e) for n in "ac" for e in (0, 1)}
    assert {number for _, number, _ in found[ahead:]} <= {2}
    assert set(uses(plan).values()) <= {1}
    every = {name: [name for name, _, _ in found[ahead:]].count(name) for name in sizes}
    assert every == counts


@settings(deadline=None, max_examples=50)
@given(sizes, batches, seeds, st.floats(0.01, 1))
def test_a_stage_may_take_a_share_that_is_drawn_anew_in_every_pass(sizes, batch, seed, share):
    plan = two_stage(supply(sizes, batch, seed), [StageRule("some", tuple(sizes), 2, None, share)])
    for name, size in sizes.items():
        full = size // batch
        expected = min(full, max(1, int(full * share + 0.5)))
        assert [number for other, number, _ in steps(plan) if other == name].count(1) == expected
    assert set(uses(plan).values()) <= {1}


def test_a_share_is_not_always_the_same_examples():
    plan = two_stage(supply({"a": 400}, 4), [StageRule("some", ("a",), 2, None, 0.5)])
    first, second = ({row for _, number, rows in steps(plan) if number == own for row in rows} for own in (0, 1))
    assert len(first) == len(second) == 200
    assert 60 < len(first & second) < 140
