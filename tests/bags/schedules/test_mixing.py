from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan
from boom_ray.bags.schedules.batches import Supply
from boom_ray.bags.schedules.mixing import example_mixing
from tests.bags.plans import ids_of, sizes, supply, uses


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_every_epoch_has_each_example_once_but_those_that_fill_no_step(sizes, batch, epochs, seed):
    plan = example_mixing(supply(sizes, batch, seed), epochs)
    total = sum(sizes.values())
    assert len(plan) == epochs * (total // batch)
    for index in range(len(plan)):
        parts = plan.parts(index)
        assert sum(len(part.rows) for part in parts) == batch
        assert [part.dataset for part in parts] == sorted({part.dataset for part in parts})
        assert {part.epoch for part in parts} == {index // (total // batch)}
    used = uses(plan)
    assert set(used.values()) <= {1}
    assert all(0 <= row < sizes[name] for name, _, row in used)
    assert Counter(epoch for _, epoch, _ in used) == (
        dict.fromkeys(range(epochs), total // batch * batch) if used else {}
    )


def test_steps_hold_datasets_by_their_sizes():
    plan = example_mixing(supply({"a": 4000, "b": 1000, "c": 3}, 100, seed=5), 2)
    shares = [sum(len(part.rows) for part in plan.parts(index) if part.dataset == "b") for index in range(len(plan))]
    assert len(plan) == 100
    assert 5 < min(shares) < 20 < max(shares) < 40  # about binomial, of mean 20
    assert abs(np.mean(shares) - 20) < 0.5
    assert any(name == "c" for name, _, _ in uses(plan))  # too small for a step of its own


def test_epochs_and_seeds_differ_and_what_is_left_out_too():
    sizes = {"a": 50, "b": 27}
    one, other = example_mixing(supply(sizes, 10, 1), 2), example_mixing(supply(sizes, 10, 2), 2)
    assert one.rows.tolist() != other.rows.tolist()
    everything = {(name, row) for name, size in sizes.items() for row in range(size)}
    left = [everything - {(name, row) for name, epoch, row in uses(one) if epoch == own} for own in (0, 1)]
    assert len(left[0]) == len(left[1]) == 7
    assert left[0] != left[1]


def test_order_follows_ids_not_rows():
    sizes = {"a": 30, "b": 21}
    ids = ids_of(sizes)
    turned = {name: values[::-1].copy() for name, values in ids.items()}
    rows = {name: np.arange(size) for name, size in sizes.items()}
    one, other = (example_mixing(Supply(rows, own, 8, 4), 2) for own in (ids, turned))
    for index in range(len(one)):
        for part, same in zip(one.parts(index), other.parts(index), strict=True):
            assert part.dataset == same.dataset
            assert ids[part.dataset][part.rows].tolist() == turned[same.dataset][same.rows].tolist()


def test_bootstrap_copies_fall_into_different_places():
    bag = Supply({"a": np.repeat(np.arange(8), 4), "b": np.arange(8)}, ids_of({"a": 8, "b": 8}), 4, 0)
    plan = example_mixing(bag, 1)
    assert Counter(uses(plan)) == {("a", 0, row): 4 for row in range(8)} | {("b", 0, row): 1 for row in range(8)}
    assert any(len(set(part.rows.tolist())) > 1 for index in range(len(plan)) for part in plan.parts(index))


def test_a_saved_plan_reads_a_step_alone(tmp_path):
    plan = example_mixing(supply({"a": 40, "b": 17}, 6, 5), 2)
    plan.save(tmp_path)
    loaded = Plan.load(tmp_path, plan.datasets)
    assert isinstance(loaded.starts, np.memmap)
    assert len(loaded) == len(plan)
    for index in (len(plan) - 1, 0, len(plan) // 2):
        for part, same in zip(plan.parts(index), loaded.parts(index), strict=True):
            assert (part.dataset, part.epoch, part.rows.tolist()) == (same.dataset, same.epoch, same.rows.tolist())
