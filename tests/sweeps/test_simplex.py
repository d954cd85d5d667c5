from __future__ import annotations

import math
from decimal import Decimal
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.sweeps.simplex import UNITS, broken_stick, lattice, readable

draws = st.lists(st.floats(0, 1), max_size=9)


def exact_sum(weights: list[float]) -> Decimal:
    """The sum of the numbers as they are written."""
    return sum((Decimal(repr(weight)) for weight in weights), Decimal(0))


@given(draws)
def test_weights_are_readable_not_negative_and_sum_to_exactly_one(numbers):
    raw = broken_stick(numbers)
    weights = readable(raw)
    assert math.fsum(raw) == pytest.approx(1, abs=1e-12)
    assert len(weights) == len(numbers) + 1
    assert min(weights) >= 0
    assert exact_sum(weights) == 1
    assert all(abs(weight - exact) <= 1 / UNITS + 1e-12 for weight, exact in zip(weights, raw, strict=True))
    assert all(weight == round(weight, 4) for weight in weights)


def test_rounding_gives_what_is_missing_to_those_that_lost_most():
    assert readable([1 / 3, 1 / 3, 1 / 3]) == [0.3334, 0.3333, 0.3333]
    assert readable([0.33332, 0.33337, 0.33331]) == [0.3333, 0.3334, 0.3333]
    assert readable([0.25, 0.75]) == [0.25, 0.75]
    assert readable([1.0]) == [1.0]


@pytest.mark.parametrize("members", [2, 3, 5])
def test_uniform_draws_are_uniform_on_the_simplex(members):
    """Dirichlet(1, …, 1) has mean 1/M, variance (M - 1)/(M²(M + 1)) and covariance -1/(M²(M + 1))."""
    rng = np.random.default_rng(7)
    count = 40_000
    weights = np.array([broken_stick(row) for row in rng.random((count, members - 1)).tolist()])
    variance = (members - 1) / (members**2 * (members + 1))
    error = 6 * math.sqrt(variance / count)
    assert np.abs(weights.mean(axis=0) - 1 / members).max() < error
    covariance = np.cov(weights.T)
    expected = (np.eye(members) * members - 1) / (members**2 * (members + 1))
    assert np.abs(covariance - expected).max() < 6 * variance / math.sqrt(count)


def test_marginals_are_those_of_beta():
    """Every weight, the last one too, is Beta(1, M - 1): P(w > x) = (1 - x)^(M - 1)."""
    rng = np.random.default_rng(3)
    weights = np.array([broken_stick(row) for row in rng.random((20_000, 3)).tolist()])
    for column in weights.T:
        for x in (0.1, 0.25, 0.5, 0.8):
            assert (column > x).mean() == pytest.approx((1 - x) ** 3, abs=6 * 0.5 / math.sqrt(20_000))


def test_ends_of_the_draws_are_single_members():
    assert broken_stick([1.0, 0.3]) == [1.0, 0.0, 0.0]
    assert broken_stick([0.0, 1.0]) == [0.0, 1.0, 0.0]
    assert broken_stick([0.0, 0.0]) == [0.0, 0.0, 1.0]
    assert broken_stick([]) == [1.0]


@pytest.mark.parametrize(("members", "steps"), [(1, 4), (2, 10), (3, 6), (4, 5), (2, 3)])
def test_a_lattice_is_every_multiple_of_its_step(members, steps):
    found = list(lattice(members, steps))
    counts = [one for one in product(range(steps + 1), repeat=members) if sum(one) == steps]
    assert len(found) == math.comb(steps + members - 1, members - 1)
    assert found == [readable([count / steps for count in one]) for one in counts]
    assert all(exact_sum(weights) == 1 for weights in found)


def test_a_curve_of_two_members():
    assert list(lattice(2, 4)) == [[0.0, 1.0], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]
