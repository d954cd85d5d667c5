from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.bags.sampling import BagRule, bag_size, draw_rows, pool_rows, quotas
from boom_ray.hashing import mix64

ratios = st.floats(0.01, 1.0)
seeds = st.integers(0, 2**31)


def make_ids(count: int, salt: int = 0) -> np.ndarray:
    return mix64(np.arange(count, dtype=np.uint64), salt)


def chosen(ids: np.ndarray, rule: BagRule, dataset: str = "d") -> set[int]:
    return set(ids[draw_rows(ids, np.arange(len(ids)), rule, dataset)].tolist())


@given(st.integers(1, 300), ratios, seeds)
def test_exact_size_without_repeats(count, ratio, seed):
    ids = make_ids(count)
    rows = draw_rows(ids, np.arange(count), BagRule(ratio, seed), "d")
    assert len(rows) == len(set(rows.tolist())) == max(1, int(ratio * count + 0.5))
    assert np.all(np.diff(rows) > 0)


@given(st.integers(1, 200), ratios, seeds, st.randoms())
def test_membership_does_not_depend_on_row_order(count, ratio, seed, random):
    ids = make_ids(count)
    order = list(range(count))
    random.shuffle(order)
    rule = BagRule(ratio, seed)
    assert chosen(ids, rule) == chosen(ids[order], rule)


@given(st.integers(1, 300), ratios, seeds)
def test_complement_is_a_partition(count, ratio, seed):
    ids = make_ids(count)
    taken = chosen(ids, BagRule(ratio, seed))
    left = chosen(ids, BagRule(ratio, seed, complement=True))
    assert not taken & left
    assert taken | left == set(ids.tolist())


@given(st.integers(2, 300), ratios, ratios, seeds)
def test_nested_bags_are_subsets(count, one, other, seed):
    ids = make_ids(count)
    small, large = sorted((one, other))
    assert chosen(ids, BagRule(small, seed, nested=True)) <= chosen(ids, BagRule(large, seed, nested=True))


def test_bags_of_different_ratio_draw_or_dataset_are_independent():
    ids = make_ids(20_000)
    base = chosen(ids, BagRule(0.5, 7))
    others = [
        chosen(ids, BagRule(0.5, 7, draw=1)),
        chosen(ids, BagRule(0.5, 8)),
        chosen(ids, BagRule(0.4, 7)),
        chosen(ids, BagRule(0.5, 7), "other"),
    ]
    for other in others:
        share = len(base & other) / len(other)
        assert abs(share - 0.5) < 0.03  # six standard errors of a fair coin


def test_growing_corpus_keeps_decisions_but_for_the_boundary():
    small, large = make_ids(1000), make_ids(1100)
    before, after = chosen(small, BagRule(0.5, 3)), chosen(large, BagRule(0.5, 3))
    kept = {value for value in after if value in set(small.tolist())}
    assert len(before ^ kept) <= 60


def test_poisson_counts_have_mean_and_variance_of_the_ratio():
    ids = make_ids(50_000)
    rows = draw_rows(ids, np.arange(len(ids)), BagRule(0.8, 5, replacement="poisson"), "d")
    counts = np.bincount(rows, minlength=len(ids))
    assert counts.mean() == pytest.approx(0.8, abs=0.03)
    assert counts.var() == pytest.approx(0.8, abs=0.05)
    assert (counts == 0).mean() == pytest.approx(np.exp(-0.8), abs=0.02)


@given(st.integers(1, 200), ratios, seeds)
def test_multinomial_size_is_exact_and_order_free(count, ratio, seed):
    ids = make_ids(count)
    rule = BagRule(ratio, seed, replacement="multinomial")
    rows = draw_rows(ids, np.arange(count), rule, "d")
    assert len(rows) == bag_size(count, ratio)
    reverse = ids[::-1].copy()
    again = draw_rows(reverse, np.arange(count), rule, "d")
    assert sorted(ids[rows].tolist()) == sorted(reverse[again].tolist())


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 1000), min_size=1), st.floats(1, 10))
def test_quotas_stay_within_sizes_and_flatten(sizes, temperature):
    result = quotas(sizes, temperature, {}, None)
    assert all(0 <= result[name] <= size for name, size in sizes.items())
    if temperature == 1:
        assert result == sizes
    filled = [name for name, size in sizes.items() if size]
    if filled:
        smallest = min(filled, key=lambda name: sizes[name])
        assert result[smallest] == sizes[smallest]


def test_quotas_follow_caps_and_a_budget():
    sizes = {"a": 1000, "b": 100, "c": 10}
    assert quotas(sizes, 1, {"a": 50}, None) == {"a": 50, "b": 100, "c": 10}
    budget = quotas(sizes, 1, {}, 111)
    assert budget == {"a": 100, "b": 10, "c": 1}
    flat = quotas(sizes, float("inf"), {}, 210)
    assert flat["c"] == 10
    assert flat["a"] == flat["b"] == 100
    assert quotas({"a": 400, "b": 100}, 2, {}, None) == {"a": 200, "b": 100}


@given(st.integers(1, 300), st.integers(0, 300), seeds)
def test_pool_is_exact_and_order_free(count, quota, seed):
    ids = make_ids(count)
    rows = pool_rows(ids, quota, seed, "d")
    assert len(rows) == min(quota, count)
    reverse = ids[::-1].copy()
    assert set(ids[rows].tolist()) == set(reverse[pool_rows(reverse, quota, seed, "d")].tolist())


def test_weights_are_factors_on_quotas():
    sizes = {"a": 400, "b": 400, "c": 100}
    assert quotas(sizes, 1, {}, None, {"a": 2}) == {"a": 400, "b": 200, "c": 50}
    assert quotas(sizes, 1, {}, None, {"b": 0.25}) == {"a": 400, "b": 100, "c": 100}
    assert quotas(sizes, 2, {}, None, {"c": 0.5}) == {"a": 400, "b": 400, "c": 100}
    assert quotas(sizes, 2, {"a": 100}, None, {"c": 2}) == {"a": 50, "b": 100, "c": 100}
    assert quotas(sizes, 1, {}, 450, {"a": 2}) == {"a": 276, "b": 138, "c": 34}  # 450·(8, 4, 1)/13


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1000), min_size=1),
    st.floats(1, 8),
    st.floats(0.1, 10),
    st.none() | st.integers(1, 3000),
)
def test_equal_weights_change_nothing(sizes, temperature, weight, most):
    plain = quotas(sizes, temperature, {}, most)
    assert quotas(sizes, temperature, {}, most, {}) == plain
    scaled = quotas(sizes, temperature, {}, most, dict.fromkeys(sizes, weight))
    assert all(abs(scaled[name] - plain[name]) <= 1 for name in sizes)  # a product may round to the other side
