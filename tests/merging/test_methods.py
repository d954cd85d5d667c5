"""Coefficients against mergekit's algorithm written out step by step, and properties that every method must have."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from boom_ray.config import MergeConfig
from boom_ray.merging.methods import F64, METHODS

NUMBERS = st.floats(-10, 10, allow_subnormal=False).map(lambda value: round(value, 6))


def vectors(least: int = 1, most: int = 5) -> st.SearchStrategy[F64]:
    """(M, n) float64."""
    shapes = st.tuples(st.integers(least, most), st.integers(1, 12))
    return shapes.flatmap(lambda shape: npst.arrays(np.float64, shape, elements=NUMBERS))


def weights_for(data: st.DataObject, count: int) -> F64:
    raw = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), dtype=np.float64)
    assume(raw.sum() > 0)
    return raw / raw.sum()


def merged(name: str, rows: F64, weights: F64, **parameters: float) -> F64:
    return METHODS[name].coefficients(rows @ rows.T, weights, parameters) @ rows


def mergekit_multislerp(rows: F64, weights: F64, eps: float = 1e-8) -> F64 | None:
    """mergekit 0.1.5, merge_methods/multislerp.py, line by line in float64; None where it gives up."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / (norms + eps)
    mean = (weights[:, None] * units).sum(axis=0)
    length = np.linalg.norm(mean)
    if length < eps:
        return None
    mean = mean / length
    tangents = units - (units @ mean)[:, None] * mean
    step = (weights[:, None] * tangents).sum(axis=0)
    angle = np.linalg.norm(step)
    result = mean if angle < eps else mean * np.cos(angle) + step * (np.sin(angle) / angle)
    return result * (weights[:, None] * norms).sum()


@given(rows=vectors(2), data=st.data())
def test_multislerp_is_mergekits_algorithm(rows: F64, data: st.DataObject) -> None:
    weights = weights_for(data, len(rows))
    norms = np.linalg.norm(rows, axis=1)
    assume((norms > 0.1).all())
    assume(np.linalg.norm((weights / norms) @ rows) > 0.01)
    expected = mergekit_multislerp(rows, weights)
    assert expected is not None
    np.testing.assert_allclose(merged("multislerp", rows, weights), expected, rtol=1e-5, atol=1e-5)


def test_multislerp_of_two_right_angles_is_known_in_closed_form() -> None:
    """Lengths 3 and 4 at a right angle, equal weights: length 3.5 on the diagonal."""
    rows = np.array([[3.0, 0.0], [0.0, 4.0]])
    result = merged("multislerp", rows, np.array([0.5, 0.5]))
    np.testing.assert_allclose(result, [3.5 / np.sqrt(2)] * 2, rtol=1e-15)


@given(rows=vectors(), data=st.data())
def test_multislerp_has_the_weighted_mean_length(rows: F64, data: st.DataObject) -> None:
    weights = weights_for(data, len(rows))
    norms = np.linalg.norm(rows, axis=1)
    assume((norms > 0.1).all())
    assume(np.linalg.norm((weights / norms) @ rows) > 0.01)
    np.testing.assert_allclose(np.linalg.norm(merged("multislerp", rows, weights)), weights @ norms, rtol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@given(rows=vectors(), data=st.data())
def test_order_of_members_does_not_matter(name: str, rows: F64, data: st.DataObject) -> None:
    weights = weights_for(data, len(rows))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    norms = np.linalg.norm(rows, axis=1)
    assume((norms > 0.1).all() and np.linalg.norm((weights / norms) @ rows) > 0.01)
    one, other = merged(name, rows, weights, scale=0.7), merged(name, rows[order], weights[order], scale=0.7)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@given(rows=vectors(), data=st.data())
def test_all_weight_on_one_member_returns_it(name: str, rows: F64, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(rows) - 1))
    weights = np.eye(len(rows))[chosen]
    np.testing.assert_allclose(merged(name, rows, weights, scale=1), rows[chosen], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", METHODS)
@given(row=vectors(1, 1), data=st.data(), count=st.integers(1, 6))
def test_equal_members_return_themselves(name: str, row: F64, data: st.DataObject, count: int) -> None:
    weights = weights_for(data, count)
    np.testing.assert_allclose(merged(name, np.repeat(row, count, 0), weights, scale=1), row[0], rtol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@given(rows=vectors(), data=st.data(), factor=st.sampled_from([1e-6, 0.5, 1e6]))
def test_scaling_all_vectors_scales_the_result(name: str, rows: F64, data: st.DataObject, factor: float) -> None:
    weights = weights_for(data, len(rows))
    norms = np.linalg.norm(rows, axis=1)
    assume((norms > 0.1).all() and np.linalg.norm((weights / norms) @ rows) > 0.01)
    one, other = merged(name, rows, weights, scale=0.3), merged(name, rows * factor, weights, scale=0.3)
    np.testing.assert_allclose(one * factor, other, rtol=1e-9, atol=1e-9 * factor)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("name", METHODS)
def test_zero_vectors_give_zero(name: str, count: int) -> None:
    """mergekit's multislerp raises for three or more."""
    weights = np.full(count, 1 / count)
    np.testing.assert_array_equal(merged(name, np.zeros((count, 7)), weights, scale=2), np.zeros(7))


def test_multislerp_ignores_a_zero_vector_but_counts_its_length() -> None:
    rows = np.array([[0.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(merged("multislerp", rows, np.array([0.25, 0.75])), [1.5, 0.0])


@pytest.mark.parametrize("copies", [1, 2])
def test_multislerp_of_cancelling_directions_is_the_average(copies: int) -> None:
    rows = np.array([[1.0, 2.0], [-2.0, -4.0]] * copies)
    weights = np.full(len(rows), 1 / len(rows))
    np.testing.assert_allclose(merged("multislerp", rows, weights), [-0.5, -1.0])


def test_every_method_can_be_configured_and_is_documented() -> None:
    assert set(METHODS) == set(get_args(MergeConfig.model_fields["method"].annotation))
    for name, method in METHODS.items():
        assert method.name == name
        assert method.summary.endswith(".") and method.source
        assert "Args:" in (method.coefficients.__doc__ or "")
        assert set(method.parameters) <= set(MergeConfig.model_fields)
