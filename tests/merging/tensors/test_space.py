"""Lengths and angles from inner products, against mpmath with sixty digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from boom_ray.merging.methods.spheres import METHODS
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import MemoryVectors

ROWS = npst.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(-9, 9).map(float))


def exact(values: F64) -> mpmath.matrix:
    return mpmath.matrix([mpmath.mpf(float(value)) for value in values])


def exact_dot(left: mpmath.matrix, right: mpmath.matrix) -> mpmath.mpf:
    return mpmath.fsum(x * y for x, y in zip(left, right, strict=True))


def exact_angle(left: F64, right: F64) -> mpmath.mpf:
    one, two = exact(left), exact(right)
    return mpmath.acos(exact_dot(one, two) / mpmath.sqrt(exact_dot(one, one) * exact_dot(two, two)))


def near(angle: float, stretch: float = 0.0, count: int = 2, size: int = 300) -> F64:
    """Vectors whose directions differ by about ``angle`` and whose lengths by a share ``stretch``."""
    generator = np.random.default_rng(5)
    first = generator.normal(size=size)
    rows = [first]
    for index in range(1, count):
        aside = generator.normal(size=size)
        aside *= np.linalg.norm(first) / np.linalg.norm(aside)
        rows.append((1 + stretch * index) * (first + angle * aside))
    return np.stack(rows)


def space_of(rows: F64) -> Space:
    return MemoryVectors("w", list(torch.from_numpy(rows))).space


@pytest.mark.parametrize("angle", [1e-7, 1e-6, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("stretch", [0.0, 1e-4])
def test_small_angles_between_whole_weights_keep_their_digits(angle: float, stretch: float) -> None:
    rows = near(angle, stretch)
    with mpmath.workdps(60):
        expected = float(exact_angle(rows[0], rows[1]))
    left, right = np.eye(2)
    assert space_of(rows).angle(left, right) == pytest.approx(expected, rel=1e-6 if stretch else 1e-9)
    product = rows @ rows.T
    naive = math.acos(min(product[0, 1] / math.sqrt(product[0, 0] * product[1, 1]), 1.0))
    assert angle > 1e-7 or abs(naive / expected - 1) > 1e-3  # what the test is about


@pytest.mark.parametrize("angle", [1e-7, 1e-3])
def test_angles_to_a_mean_keep_their_digits_too(angle: float) -> None:
    rows = near(angle, count=4)
    mean = np.array([0.1, 0.2, 0.3, 0.4])
    with mpmath.workdps(60):
        whole = sum((exact(row) * mpmath.mpf(share) for row, share in zip(rows, mean, strict=True)), exact(rows[0]) * 0)
        cosine = exact_dot(whole, exact(rows[2])) / mpmath.sqrt(
            exact_dot(whole, whole) * exact_dot(exact(rows[2]), exact(rows[2]))
        )
        expected = float(mpmath.acos(cosine))
    assert space_of(rows).angle(mean, np.eye(4)[2]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["multislerp", "riemannian_step", "karcher"])
@pytest.mark.parametrize("angle", [1e-7, 1e-3])
def test_what_means_of_near_parallel_vectors_add_to_the_first_is_right(name: str, angle: float) -> None:
    """The step between the three is of the order of the third power of the angle: all must be the closed form."""
    rows, weights = near(angle, 1e-5, count=3), np.array([0.2, 0.3, 0.5])
    method = {method.name: method for method in METHODS}[name]
    assert method.rule is not None
    found = method.rule(space_of(rows), weights, {"iterations": 100, "tolerance": 1e-12})
    with mpmath.workdps(60):
        lengths = [mpmath.sqrt(exact_dot(exact(row), exact(row))) for row in rows]
        shares = [mpmath.mpf(weight) / length for weight, length in zip(weights, lengths, strict=True)]
        mean = sum((exact(row) * share for row, share in zip(rows, shares, strict=True)), exact(rows[0]) * 0)
        factor = sum(mpmath.mpf(weight) * length for weight, length in zip(weights, lengths, strict=True))
        factor /= mpmath.sqrt(exact_dot(mean, mean))
        expected = np.array([float(share * factor) for share in shares])
    np.testing.assert_allclose(found, expected, rtol=max(1e-14, angle**2))


@given(rows=ROWS)
def test_all_bases_tell_the_same(rows: F64) -> None:
    base = np.arange(rows.shape[1], dtype=np.float64)
    count = len(rows)
    from_base = np.vstack([base, rows - base])
    from_first = np.vstack([rows[:1], rows[1:] - rows[:1]])
    spaces = [
        Space.of_gram(rows @ rows.T),
        Space.of_differences(from_base @ from_base.T, whole=True),
        Space.of_first(from_first @ from_first.T),
    ]
    for space in spaces:
        assert space.members == count
        np.testing.assert_allclose(space.gram, rows @ rows.T, atol=1e-9)
        np.testing.assert_allclose(space.norms, np.linalg.norm(rows, axis=1), rtol=1e-7, atol=1e-6)
    differences = Space.of_differences(from_base @ from_base.T, whole=False)
    np.testing.assert_array_equal(differences.gram, (rows - base) @ (rows - base).T)


@given(rows=ROWS, data=st.data())
def test_inner_products_of_combinations(rows: F64, data: st.DataObject) -> None:
    pick = npst.arrays(np.float64, len(rows), elements=st.integers(-3, 3).map(float))
    left, right = data.draw(pick), data.draw(pick)
    space = Space.of_gram(rows @ rows.T)
    assert space.inner(left, right) == pytest.approx(float((left @ rows) @ (right @ rows)), abs=1e-9)
    assert space.norm(left) == pytest.approx(float(np.linalg.norm(left @ rows)), abs=1e-9)


def test_angles_of_equal_zero_and_opposite_vectors() -> None:
    space = space_of(np.array([[1.0, 2.0], [-2.0, -4.0], [0.0, 0.0], [3.0, 6.0]]))
    first, opposite, zero, same = np.eye(4)
    assert space.angle(first, opposite) == pytest.approx(math.pi, abs=1e-7)
    assert space.angle(first, zero) == space.angle(zero, first) == space.angle(zero, zero) == 0.0
    assert space.angle(first, same) < 1e-7
    assert space.angle(first, first) == 0.0
