"""Means on the sphere: mergekit where it is right, closed forms on circles and spheres, and what every mean must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from boom_ray.merging.methods.method import Method
from boom_ray.merging.methods.spheres import METHODS
from boom_ray.merging.tensors.space import F64, Space
from tests.merging.merged import merged
from tests.merging.methods.drawn import FEW, drawn_vectors, drawn_weights, fine_tunes, polar, vector_of
from tests.merging.methods.oracle import mergekit

BY_NAME = {method.name: method for method in METHODS}
MEANS = [BY_NAME["multislerp"], BY_NAME["riemannian_step"], BY_NAME["karcher"]]
DTYPES = pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
angle = Space.angle
EVERY_MEAN = pytest.mark.parametrize("method", MEANS, ids=lambda method: method.name)


def count_for(method: Method, data: st.DataObject, least: int = 1) -> int:
    return 2 if method.most == 2 else data.draw(st.integers(least, 5))


def acute(count: int, data: st.DataObject) -> F64:
    """Vectors of positive elements: all below a right angle, so that every mean is unique; lengths of one order."""
    size = data.draw(st.integers(1, 12))
    return data.draw(npst.arrays(np.float64, (count, size), elements=st.integers(100, 10_000).map(lambda x: x / 1000)))


# --- mergekit ----------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("count", [2, 5])
def test_multislerp_is_mergekits(dtype: torch.dtype, close: float, with_base: bool, count: int) -> None:
    base, members = fine_tunes(count, (40, 30), dtype=dtype)
    start = base if with_base else None
    weights = [0.2 + 0.3 * index for index in range(count)]
    eps = 1e-15 if dtype == torch.float64 else 1e-8
    expected = mergekit("multislerp", members, start, weights, eps=eps)
    found = merged(BY_NAME["multislerp"], members, start, weights, dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


@DTYPES
@pytest.mark.parametrize("drift", [0.3, 2.0])
def test_karcher_is_mergekits_with_equal_weights(dtype: torch.dtype, close: float, drift: float) -> None:
    _, members = fine_tunes(4, (40, 30), drift=drift, common=0.0, dtype=dtype)
    expected = mergekit("karcher", members, max_iter=100, tol=1e-10 if dtype == torch.float64 else 1e-6)
    found = merged(BY_NAME["karcher"], members, dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


def test_three_members_that_did_not_move_are_the_base_where_mergekit_raises() -> None:
    base, _ = fine_tunes(1, (40, 30), dtype=torch.float32)
    with pytest.raises(ValueError, match="weighted sum of the input tensors is zero"):
        mergekit("multislerp", [base] * 3, base, [1.0] * 3)
    for method in MEANS:
        assert torch.equal(merged(method, [base] * 3, base, dtype=torch.float32), base)


# --- means -------------------------------------------------------------------------------------------------------


def test_multislerp_of_two_right_angles_is_known_in_closed_form() -> None:
    """Lengths 3 and 4 at a right angle, equal weights: length 3.5 on the diagonal."""
    found = vector_of(BY_NAME["multislerp"], np.array([[3.0, 0.0], [0.0, 4.0]]), [0.5, 0.5])
    np.testing.assert_allclose(found, [3.5 / np.sqrt(2)] * 2, rtol=1e-15)


@EVERY_MEAN
@FEW
@given(data=st.data())
def test_means_have_the_weighted_mean_length(method: Method, data: st.DataObject) -> None:
    rows = acute(count_for(method, data), data)
    weights = drawn_weights(data, len(rows))
    expected = weights @ np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(np.linalg.norm(vector_of(method, rows, weights)), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["riemannian_step", "karcher"])
def test_on_the_circle_the_true_logarithm_averages_the_angles(name: str) -> None:
    """One step is enough there; the mean direction of multislerp is another one."""
    angles, lengths, weights = [0.1, 0.4, 2.0], [1.0, 2.0, 3.0], [0.5, 0.3, 0.2]
    found = vector_of(BY_NAME[name], polar(angles, lengths), weights)
    expected = polar([float(np.dot(weights, angles))], [float(np.dot(weights, lengths))])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    chordal = vector_of(BY_NAME["multislerp"], polar(angles, lengths), weights)
    direction = np.dot(weights, polar(angles))
    np.testing.assert_allclose(math.atan2(chordal[1], chordal[0]), math.atan2(direction[1], direction[0]), rtol=1e-12)
    assert abs(math.atan2(chordal[1], chordal[0]) - np.dot(weights, angles)) > 0.05


def log(at: F64, point: F64) -> F64:
    angle = math.acos(float(np.clip(at @ point, -1, 1)))
    return point * 0 if angle == 0 else angle / math.sin(angle) * (point - math.cos(angle) * at)


def test_riemannian_step_on_the_sphere_is_the_papers_formula_on_whole_vectors() -> None:
    rows = np.array([[1.0, 0.2, 0.0], [0.1, 2.0, 0.3], [0.2, 0.1, 3.0], [1.0, -0.5, 0.2]])
    weights = np.array([0.1, 0.5, 0.2, 0.2])
    lengths = np.linalg.norm(rows, axis=1)
    units = rows / lengths[:, None]
    mean = weights @ units / np.linalg.norm(weights @ units)
    step = sum(weight * log(mean, unit) for weight, unit in zip(weights, units, strict=True))
    size = np.linalg.norm(step)
    expected = (weights @ lengths) * (math.cos(size) * mean + math.sin(size) / size * step)
    assert size > 0.01
    np.testing.assert_allclose(vector_of(BY_NAME["riemannian_step"], rows, weights), expected, rtol=1e-12)


def test_riemannian_step_is_the_first_of_karcher_and_not_the_last() -> None:
    rows = np.random.default_rng(3).uniform(0.0, 1.0, (4, 6)) ** 4
    weights = [0.1, 0.2, 0.3, 0.4]
    one = vector_of(BY_NAME["riemannian_step"], rows, weights)
    np.testing.assert_array_equal(one, vector_of(BY_NAME["karcher"], rows, weights, iterations=1))
    for other in (vector_of(BY_NAME["karcher"], rows, weights), vector_of(BY_NAME["multislerp"], rows, weights)):
        assert np.linalg.norm(one - other) > 1e-5 * np.linalg.norm(one)


@FEW
@given(data=st.data())
def test_the_logarithms_at_the_karcher_mean_cancel(data: st.DataObject) -> None:
    rows = acute(count_for(BY_NAME["karcher"], data, 2), data)
    weights = drawn_weights(data, len(rows))
    found = vector_of(BY_NAME["karcher"], rows, weights, iterations=10_000)
    at = found / np.linalg.norm(found)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    total = sum(weight * log(at, unit) for weight, unit in zip(weights, units, strict=True))
    np.testing.assert_allclose(total, 0.0, atol=1e-7)  # the arc cosine of this check is blind below 1e-8


@FEW
@given(angle=st.floats(0.001, 3.0), t=st.floats(0.0, 1.0))
def test_the_karcher_mean_of_two_directions_is_their_slerp(angle: float, t: float) -> None:
    rows = polar([0.3, 0.3 + angle])
    karcher, slerp = (vector_of(BY_NAME[name], rows, [1 - t, t]) for name in ("karcher", "slerp"))
    np.testing.assert_allclose(karcher, slerp, rtol=0, atol=1e-9)


def test_three_axes_meet_on_the_diagonal() -> None:
    for method in MEANS:
        np.testing.assert_allclose(vector_of(method, np.eye(3), [1, 1, 1]), np.full(3, 3**-0.5), rtol=1e-15)


def test_equal_weights_on_two_members_make_all_means_one() -> None:
    rows = polar([0.2, 1.9], [1.0, 3.0])
    found = [vector_of(method, rows, [0.5, 0.5]) for method in MEANS]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-14)


def test_the_step_is_of_the_order_of_the_third_power_of_the_angles() -> None:
    def step(spread: float) -> float:
        rows = polar([0.0, 0.4 * spread, spread])
        pair = [vector_of(BY_NAME[name], rows, [0.5, 0.3, 0.2]) for name in ("multislerp", "riemannian_step")]
        return float(np.linalg.norm(pair[0] - pair[1]))

    assert step(0.2) / step(0.1) == pytest.approx(8, rel=0.02)


def test_a_zero_vector_has_no_direction_but_its_length_counts() -> None:
    for method in MEANS:
        rows = np.array([[0.0, 0.0], [2.0, 0.0]])
        np.testing.assert_array_equal(vector_of(method, rows, [0.25, 0.75]), [1.5, 0.0])
        three = np.vstack([polar([0.3, 1.1], [2.0, 4.0]), np.zeros((1, 2))])
        expected = 3 / 4 * vector_of(method, three[:2], [1, 2])
        np.testing.assert_allclose(vector_of(method, three, [1, 2, 1]), expected, rtol=1e-14)


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("rows", [[[3.0], [0.7], [1.1]], [[0.1, 0.3], [0.2, 0.6], [0.7, 2.1]]])
def test_the_walk_to_the_mean_of_parallel_vectors_ends_soon(
    rows: list[list[float]], with_base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are parallel up to rounding, so every step has a length that is nothing but rounding."""
    asked: list[float] = []
    monkeypatch.setattr(Space, "angle", lambda *given: asked.append(angle(*given)) or asked[-1])
    tensors = list(torch.tensor(rows, dtype=torch.float64))
    found = merged(BY_NAME["karcher"], tensors, torch.zeros_like(tensors[0]) if with_base else None)
    torch.testing.assert_close(found, (tensors[0] + tensors[1] + tensors[2]) / 3, rtol=1e-7, atol=0)
    assert len(asked) < 3 * 10 and max(asked) < 1e-6


def test_the_walk_ends_where_its_steps_are_rounding_though_longer_than_the_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second vector is ten thousand times shorter than its difference from the first, so it has fewer digits."""
    asked: list[float] = []
    monkeypatch.setattr(Space, "angle", lambda *given: asked.append(angle(*given)) or asked[-1])
    rows = np.array([[10.0, 1.0, 0.0], [0.001, 0.002, 0.001]])
    vector_of(BY_NAME["karcher"], rows, [0.3, 0.7])
    assert len(asked) < 2 * 20


@EVERY_MEAN
@pytest.mark.parametrize("copies", [1, 2])
def test_cancelling_directions_give_the_average(method: Method, copies: int) -> None:
    rows = np.array([[1.0, 2.0], [-2.0, -4.0]] * copies)
    np.testing.assert_allclose(vector_of(method, rows, [1] * len(rows)), [-0.5, -1.0], rtol=1e-15)


@pytest.mark.parametrize("name", ["riemannian_step", "karcher"])
def test_a_member_opposite_the_mean_gives_the_average(name: str) -> None:
    rows = np.array([[1.0, 2.0], [-2.0, -4.0]])
    np.testing.assert_allclose(vector_of(BY_NAME[name], rows, [0.75, 0.25]), [0.25, 0.5], rtol=1e-15)


# --- what every method does --------------------------------------------------------------------------------------


@EVERY
@FEW
@given(data=st.data())
def test_order_of_members_does_not_matter(method: Method, data: st.DataObject) -> None:
    rows = acute(count_for(method, data), data)
    weights = drawn_weights(data, len(rows))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    np.testing.assert_allclose(
        vector_of(method, rows, weights), vector_of(method, rows[order], weights[order]), rtol=1e-9
    )


@EVERY
@FEW
@given(data=st.data())
def test_all_weight_on_one_member_returns_it_bit_by_bit(method: Method, data: st.DataObject) -> None:
    count = count_for(method, data)
    rows = data.draw(drawn_vectors(count, count))
    chosen = data.draw(st.integers(0, count - 1))
    np.testing.assert_array_equal(vector_of(method, rows, np.eye(count)[chosen]), rows[chosen])


@EVERY
@FEW
@given(data=st.data(), row=drawn_vectors(1, 1))
def test_equal_members_return_themselves(method: Method, data: st.DataObject, row: F64) -> None:
    count = count_for(method, data)
    weights = drawn_weights(data, count)
    found = vector_of(method, np.repeat(row, count, 0), weights)
    np.testing.assert_allclose(found, row[0], rtol=1e-12)


@EVERY
@FEW
@given(data=st.data(), factor=st.sampled_from([1e-6, 0.5, 1e6]))
def test_scaling_all_vectors_scales_the_result(method: Method, data: st.DataObject, factor: float) -> None:
    rows = acute(count_for(method, data), data)
    weights = drawn_weights(data, len(rows))
    np.testing.assert_allclose(
        vector_of(method, rows, weights) * factor, vector_of(method, rows * factor, weights), rtol=1e-9
    )


@EVERY
@FEW
@given(data=st.data())
def test_turning_all_vectors_turns_the_result(method: Method, data: st.DataObject) -> None:
    rows = acute(count_for(method, data), data)
    assume(rows.shape[1] > 1)
    weights = drawn_weights(data, len(rows))
    turn, _ = np.linalg.qr(np.random.default_rng(rows.shape[1]).normal(size=(rows.shape[1], rows.shape[1])))
    np.testing.assert_allclose(
        vector_of(method, rows, weights) @ turn, vector_of(method, rows @ turn, weights), atol=1e-8
    )


@EVERY
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_shapes(method: Method, shape: tuple[int, ...], with_base: bool, granularity: str) -> None:
    base, members = fine_tunes(1, shape)
    parameters = {"granularity": granularity} if method.name == "nuslerp" else {}
    found = merged(method, members * 2, base if with_base else None, **parameters)
    torch.testing.assert_close(found, members[0], rtol=1e-14, atol=1e-14)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("with_base", [False, True])
def test_16_bit_members_are_merged_as_their_exact_values(method: Method, dtype: torch.dtype, with_base: bool) -> None:
    base, members = fine_tunes(2, (50,), dtype=dtype)
    start = base if with_base else None
    exact = merged(method, [one.double() for one in members], base.double() if with_base else None, [0.3, 0.7])
    found = merged(method, members, start, [0.3, 0.7], dtype=torch.float32)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6)


@EVERY
def test_members_that_did_not_move_are_the_base_bit_by_bit(method: Method) -> None:
    base, _ = fine_tunes(1, (50, 3), dtype=torch.float32)
    assert torch.equal(merged(method, [base, base], base, [1, 2], dtype=torch.float32), base)
