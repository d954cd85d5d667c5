"""Averages against mergekit, and the greedy soup against its recipe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import MergeError
from boom_ray.merging.methods.averages import METHODS, greedy_soup
from boom_ray.merging.methods.method import Method
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import MemoryVectors, Span, Strip
from tests.merging.merged import merged
from tests.merging.methods.drawn import FEW, drawn_vectors, drawn_weights, fine_tunes
from tests.merging.methods.oracle import mergekit

BY_NAME = {method.name: method for method in METHODS}
LINEAR, TASK = BY_NAME["linear"], BY_NAME["task_arithmetic"]


def arguments(method: Method, rows: F64) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    tensors = list(torch.from_numpy(rows))
    return tensors, torch.zeros_like(tensors[0]) if method.base == "required" else None


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_linear_is_mergekits(dtype: torch.dtype, close: float) -> None:
    _, members = fine_tunes(3, (40, 30), dtype=dtype)
    weights = [0.2, 0.5, 0.9]
    expected = mergekit("linear", members, weights=weights, normalize=True)
    torch.testing.assert_close(merged(LINEAR, members, weights=weights, dtype=dtype), expected, rtol=close, atol=close)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_task_arithmetic_is_mergekits(dtype: torch.dtype, close: float) -> None:
    base, members = fine_tunes(3, (40, 30), dtype=dtype)
    weights = [0.2, 0.5, 0.9]
    expected = mergekit("task_arithmetic", members, base, weights, normalize=True, **{"lambda": 1.7})
    found = merged(TASK, members, base, weights, dtype=dtype, scale=1.7)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_nothing_is_read_before_the_merge(method: Method) -> None:
    class Unreadable(MemoryVectors):
        def load(self, span: Span) -> Strip:
            raise AssertionError("read")

    vectors = Unreadable("w", [torch.ones(3), torch.ones(3)], torch.ones(3) if method.base == "required" else None)
    method.prepare(vectors, np.array([0.25, 0.75]), {"scale": 2.0})
    expected = [0.5, 1.5] if method is TASK else [0.25, 0.75]
    assert vectors.notes == {"coefficients": expected}
    assert not method.needs - {"scores"}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FEW
@given(rows=drawn_vectors(), data=st.data())
def test_the_weighted_sum_in_any_order(method: Method, rows: F64, data: st.DataObject) -> None:
    weights = drawn_weights(data, len(rows))
    order = data.draw(st.permutations(range(len(rows))))
    for chosen in (list(range(len(rows))), list(order)):
        found = merged(method, *arguments(method, rows[chosen]), weights=weights[chosen])
        np.testing.assert_allclose(found.numpy(), weights @ rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FEW
@given(rows=drawn_vectors(), data=st.data())
def test_all_weight_on_one_member_returns_it_bit_by_bit(method: Method, rows: F64, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(rows) - 1))
    found = merged(method, *arguments(method, rows), weights=np.eye(len(rows))[chosen])
    np.testing.assert_array_equal(found.numpy(), rows[chosen])


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_shapes(method: Method, shape: tuple[int, ...]) -> None:
    base, members = fine_tunes(2, shape)
    found = merged(method, members, base if method.base == "required" else None)
    torch.testing.assert_close(found, (members[0] + members[1]) / 2, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_members_are_added_in_wider_arithmetic(dtype: torch.dtype) -> None:
    base, members = fine_tunes(3, (50,), dtype=dtype)
    exact = sum(member.double() for member in members) / 3
    for found in (merged(LINEAR, members, dtype=torch.float32), merged(TASK, members, base, dtype=torch.float32)):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


def test_members_that_did_not_move_are_the_base_bit_by_bit() -> None:
    base, _ = fine_tunes(1, (50,), dtype=torch.float32)
    found = merged(TASK, [base, base, base], base, [1, 2, 3], dtype=torch.float32, scale=3.0)
    assert torch.equal(found, base)


class Judge:
    """Held-out score of a soup: minus the distance of the members' mean from a target; counts its work."""

    def __init__(self, values: list[float], target: float) -> None:
        self.values, self.target = values, target
        self.asked: list[tuple[int, ...]] = []

    @property
    def scores(self) -> list[float]:
        return [self.of((position,)) for position in range(len(self.values))]

    def of(self, soup: tuple[int, ...]) -> float:
        return -abs(sum(self.values[position] for position in soup) / len(soup) - self.target)

    def __call__(self, soup: tuple[int, ...]) -> float:
        self.asked.append(soup)
        return self.of(soup)


def test_greedy_soup_step_by_step() -> None:
    """Target 0; 1 is best, -2 makes the mean -0.5, 4 would make it 1."""
    judge = Judge([4.0, -2.0, 1.0], 0.0)
    assert greedy_soup(judge.scores, judge) == (0.0, 0.5, 0.5)
    assert judge.asked == [(1, 2), (0, 1, 2)]


def test_a_member_that_changes_nothing_is_kept_and_equal_scores_are_tried_in_order() -> None:
    asked: list[tuple[int, ...]] = []

    def flat(soup: tuple[int, ...]) -> float:
        asked.append(soup)
        return 0.5

    assert greedy_soup([0.5, 0.5, 0.5, 0.5], flat) == (0.25,) * 4
    assert asked == [(0, 1), (0, 1, 2), (0, 1, 2, 3)]


def test_the_best_member_alone_when_all_others_hurt() -> None:
    assert greedy_soup([0.1, 0.9, 0.5], lambda soup: 0.8) == (0.0, 1.0, 0.0)


def test_one_member_needs_no_evaluation() -> None:
    judge = Judge([3.0], 0.0)
    assert greedy_soup(judge.scores, judge) == (1.0,)
    assert not judge.asked


@FEW
@given(values=st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=8), target=st.integers(-50, 50).map(float))
def test_the_soup_is_never_worse_than_the_best_member(values: list[float], target: float) -> None:
    judge = Judge(values, target)
    weights = greedy_soup(judge.scores, judge)
    soup = tuple(position for position, weight in enumerate(weights) if weight > 0)
    assert {weights[position] for position in soup} == {1 / len(soup)}
    assert judge.of(soup) >= max(judge.scores)
    assert len(judge.asked) == len(set(judge.asked)) == len(values) - 1


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(MergeError, match="member 1 is not a number"):
        greedy_soup([0.5, math.nan], lambda soup: 1.0)
    with pytest.raises(MergeError, match="soup of members 0, 1 is not a number"):
        greedy_soup([0.5, 0.4], lambda soup: math.nan)
    with pytest.raises(MergeError, match="at least one member"):
        greedy_soup([], lambda soup: 1.0)
