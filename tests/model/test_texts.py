from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.model.texts import CUT_COST, cut, packed, padded

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=9).map(lambda one: np.array(sorted(one, reverse=True)))


def texts(*lengths: int) -> list[np.ndarray]:
    return [np.arange(1, 1 + length, dtype=np.int32) * 10 for length in lengths]


def test_padded_texts_have_a_mask_only_where_there_is_padding():
    batch = padded(texts(3, 1), pad_id=7)
    assert batch.ids.tolist() == [[10, 20, 30], [10, 7, 7]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert (batch.count, batch.longest, batch.tokens, batch.slots) == (2, 3, 4, 6)
    assert padded(texts(2, 2)).mask is None


def test_packed_texts_stand_one_after_the_other():
    batch = packed(texts(3, 1, 2))
    assert batch.ids.tolist() == [[10, 20, 30, 10, 10, 20]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch.offsets.tolist() == [0, 3, 4, 6]
    assert (batch.count, batch.longest, batch.tokens, batch.slots) == (3, 3, 6, 6)


def cost(lengths: np.ndarray, cuts: list[slice]) -> int:
    return sum(int(lengths[part.start]) * (part.stop - part.start) + CUT_COST for part in cuts)


def every_division(count: int) -> list[list[slice]]:
    found = []
    for size in range(count):
        for inner in itertools.combinations(range(1, count), size):
            edges = [0, *inner, count]
            found.append([slice(low, high) for low, high in itertools.pairwise(edges)])
    return found


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(20, 400))
def test_padded_cuts_are_the_cheapest_of_all(lengths, budget):
    cuts = cut(lengths, budget, is_packed=False)
    legal = [
        one
        for one in every_division(len(lengths))
        if all(lengths[p.start] * (p.stop - p.start) <= budget or p.stop - p.start == 1 for p in one)
    ]
    assert [place for part in cuts for place in range(part.start, part.stop)] == list(range(len(lengths)))
    assert cuts in legal
    assert cost(lengths, cuts) == min(cost(lengths, one) for one in legal)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(20, 400))
def test_packed_cuts_keep_to_the_budget_and_are_even(lengths, budget):
    cuts = cut(lengths, budget, is_packed=True)
    assert [place for part in cuts for place in range(part.start, part.stop)] == list(range(len(lengths)))
    sizes = [int(lengths[part].sum()) for part in cuts]
    assert all(size <= budget or part.stop - part.start == 1 for size, part in zip(sizes, cuts, strict=True))
    if lengths.sum() <= budget and (lengths == lengths[0]).sum() in (len(lengths), *range(16)):
        assert len(cuts) == 1


def test_texts_of_one_length_have_passes_of_their_own():
    lengths = np.array([10] * 70 + [9, 5, 3])
    cuts = cut(lengths, 330, is_packed=True)
    assert [(part.start, part.stop) for part in cuts] == [(0, 32), (32, 64), (64, 73)]
    assert [(p.start, p.stop) for p in cut(lengths[:70], 330, is_packed=True)] == [(0, 23), (23, 46), (46, 70)]
    assert cut(lengths[50:], 4000, is_packed=True) == [slice(0, 23)]  # too few to be worth it


def test_no_texts_need_no_pass():
    assert cut(np.array([], dtype=np.int64), 100, is_packed=False) == []
