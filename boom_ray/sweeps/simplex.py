"""Merge weights as points of the simplex: from a searcher's numbers, rounded, or on a lattice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

UNITS = 10_000
"""Weights are multiples of 1/UNITS: readable, and the same recipe whatever the last digits of a search."""


def broken_stick(draws: Sequence[float]) -> list[float]:
    """Weights from numbers between 0 and 1, each the share of what is left that the next member gets.

    Independent uniform draws give weights of the Dirichlet distribution with all parameters 1, uniform on the simplex:
    the i-th share has the distribution Beta(1, M - i), whose inverse distribution function is 1 - (1 - u)^(1/(M - i)).

    Args:
        draws: M - 1 numbers in [0, 1].

    Returns:
        M weights, none negative, sum 1 up to rounding.

    Source: Sethuraman, "A constructive definition of Dirichlet priors", 1994; Connor and Mosimann, 1969.
    """
    left, weights = 1.0, []
    for index, draw in enumerate(draws):
        rest = left * (1 - draw) ** (1 / (len(draws) - index))
        weights.append(left - rest)
        left = rest
    return [*weights, left]


def readable(weights: Sequence[float]) -> list[float]:
    """Weights rounded to four decimals whose sum, as decimal numbers, is exactly 1.

    All are rounded down, and what is missing goes to those that lost most, the first ones of equals.

    Args:
        weights: M of them, none negative, sum 1 up to rounding.
    """
    floors = [math.floor(weight * UNITS) for weight in weights]
    lost = sorted(range(len(weights)), key=lambda index: (floors[index] - weights[index] * UNITS, index))
    for index in lost[: UNITS - sum(floors)]:
        floors[index] += 1
    return [count / UNITS for count in floors]


def lattice(members: int, steps: int) -> Iterator[list[float]]:
    """All weights that are multiples of 1/steps, single members included, in the order of the first weights.

    Yields:
        (steps + M - 1 over M - 1) lists of M weights, rounded as by `readable`.
    """
    places = steps + members - 1
    for bars in combinations(range(places), members - 1):
        counts = [after - before - 1 for before, after in pairwise((-1, *bars, places))]
        yield readable([count / steps for count in counts])
