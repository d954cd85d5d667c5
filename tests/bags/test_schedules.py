from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan, share
from boom_ray.bags.schedules import batch_level_shuffling
from boom_ray.bags.stage import fingerprint
from boom_ray.hashing import mix64

sizes = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 60), min_size=1)


def make(sizes: dict[str, int], batch: int, epochs: int, seed: int) -> tuple[Plan, dict[str, np.ndarray]]:
    ids = {name: mix64(np.arange(size, dtype=np.uint64), ord(name)) for name, size in sizes.items()}
    rows = {name: np.arange(size) for name, size in sizes.items()}
    return batch_level_shuffling(rows, ids, batch, epochs, seed), ids


@given(sizes, st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_steps_are_homogeneous_full_and_use_each_example_once_per_epoch(sizes, batch, epochs, seed):
    plan, _ = make(sizes, batch, epochs, seed)
    assert len(plan) == epochs * sum(size // batch for size in sizes.values())
    seen: set[tuple[str, int, int]] = set()
    for index in range(len(plan)):
        step = plan.step(index)
        assert len(step.rows) == batch
        for row in step.rows.tolist():
            assert 0 <= row < sizes[step.dataset]
            assert (step.dataset, step.epoch, row) not in seen
            seen.add((step.dataset, step.epoch, row))
    assert [plan.step(index).epoch for index in range(len(plan))] == sorted(plan.epoch.tolist())


@given(st.integers(1, 8).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, 5).map(lambda k: k * w))))
def test_slices_of_all_ranks_are_the_step(case):
    workers, batch = case
    plan, _ = make({"a": 40}, batch, 1, 0)
    for index in range(len(plan)):
        step = plan.step(index)
        parts = [step.rows[share(len(step.rows), rank, workers)] for rank in range(workers)]
        assert np.concatenate(parts).tolist() == step.rows.tolist()
        assert {len(part) for part in parts} == {batch // workers}


def test_order_follows_ids_not_rows():
    plan, ids = make({"a": 30, "b": 20}, 4, 2, 1)
    turned = {name: values[::-1].copy() for name, values in ids.items()}
    rows = {name: np.arange(len(values)) for name, values in ids.items()}
    other = batch_level_shuffling(rows, turned, 4, 2, 1)
    for index in range(len(plan)):
        one, two = plan.step(index), other.step(index)
        assert one.dataset == two.dataset
        assert ids[one.dataset][one.rows].tolist() == turned[two.dataset][two.rows].tolist()


def test_epochs_and_seeds_differ_and_steps_are_mixed():
    plan, _ = make({"a": 64, "b": 64}, 4, 2, 1)
    half = len(plan) // 2
    assert plan.rows[: half * 4].tolist() != plan.rows[half * 4 :].tolist()
    assert plan.rows.tolist() != make({"a": 64, "b": 64}, 4, 2, 2)[0].rows.tolist()
    changes = int(np.count_nonzero(np.diff(plan.dataset[:half])))
    assert changes > half // 4  # sequential schedules would change once


def test_bootstrap_copies_fall_into_different_places():
    ids = {"a": mix64(np.arange(8, dtype=np.uint64), 3)}
    rows = {"a": np.repeat(np.arange(8), 4)}
    plan = batch_level_shuffling(rows, ids, 4, 1, 0)
    assert np.bincount(plan.rows).tolist() == [4] * 8
    assert any(len(set(plan.step(index).rows.tolist())) > 1 for index in range(len(plan)))


def test_a_saved_plan_reads_a_step_alone(tmp_path):
    plan, _ = make({"a": 40, "b": 17}, 3, 2, 5)
    plan.save(tmp_path)
    loaded = Plan.load(tmp_path, plan.datasets)
    assert isinstance(loaded.rows, np.memmap)
    for index in (len(plan) - 1, 0, len(plan) // 2):
        assert loaded.step(index).rows.tolist() == plan.step(index).rows.tolist()
        assert loaded.step(index).dataset == plan.step(index).dataset


def test_the_plan_of_a_seed_is_the_one_of_earlier_versions():
    """Members that are in stores were trained on it: their bags' fingerprints must stay."""
    sizes = {"a": 103, "b": 37, "c": 5, "d": 64}
    ids = {name: mix64(np.arange(size, dtype=np.uint64), ord(name)) for name, size in sizes.items()}
    rows = {name: np.arange(size) for name, size in sizes.items()} | {"d": np.repeat(np.arange(32), 2)}
    plan = batch_level_shuffling(rows, ids, 8, 3, 7)
    assert fingerprint(plan, ids) == "a0ceb10e6b711100ec7b1999e9caad79"
