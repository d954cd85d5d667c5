from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from boom_ray.artifacts.choice import Choice, Ragged, choose
from boom_ray.hashing import mix64

words = st.integers(0, 2**64 - 1)
counts = st.tuples(st.integers(1, 2**31), st.integers(0, 7))


@example(rows=[(2**64 // 3 + 1, (3, 2))], limit=1)  # the lower half of the hash decides
@given(rows=st.lists(st.tuples(words, counts), min_size=1, max_size=6), limit=st.integers(0, 8))
def test_it_is_the_choice_of_each_example_by_itself(rows, limit):
    hashes = np.array([value for value, _ in rows], dtype=np.uint64)
    positives, negatives = (np.array([count[part] for _, count in rows]) for part in range(2))
    found = choose(hashes, positives, negatives, limit)
    assert found.negatives.shape[1] == min(limit, max(negatives))
    for place, (value, (some, count)) in enumerate(rows):
        assert found.positive[place] == value * some // 2**64
        order = mix64(np.arange(count, dtype=np.uint64), value).tolist()
        expected = sorted(range(count), key=order.__getitem__)[:limit] if count > limit else range(count)
        used = found.present[place].sum() - 1
        assert found.negatives[place, :used].tolist() == sorted(expected)
        assert found.present[place].tolist() == [True] * (1 + used) + [False] * (found.negatives.shape[1] - used)


def test_every_negative_has_the_same_chance():
    hashes = mix64(np.arange(6000, dtype=np.uint64), 1)
    found = choose(hashes, np.full(6000, 3), np.full(6000, 5), 2)
    seen = Counter(found.negatives.ravel().tolist())
    assert all(abs(seen[number] - 2400) < 200 for number in range(5))
    assert all(abs(times - 2000) < 200 for times in Counter(found.positive.tolist()).values())


lists = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5)


@given(rows=lists)
def test_ragged_lists_are_padded_with_their_first(rows):
    found = Ragged.of([np.array(row) for row in rows]).padded().tolist()
    width = max(map(len, rows))
    assert found == [row + row[:1] * (width - len(row)) for row in rows]


@given(rows=lists, kept=st.sets(st.integers(0, 9)))
def test_ragged_lists_keep_what_is_wanted(rows, kept):
    whole = Ragged.of([np.array(row) for row in rows])
    found = whole.where(np.isin(whole.values, sorted(kept)))
    ends = np.cumsum(found.counts).tolist()
    assert [found.values[start:end].tolist() for start, end in zip(found.starts.tolist(), ends, strict=True)] == [
        [value for value in row if value in kept] for row in rows
    ]


def test_absent_negatives_are_0():
    choice = Choice(np.array([1, 0]), np.array([[0, 2], [0, 0]]), np.array([[True] * 3, [True, False, False]]))
    positives = Ragged.of([np.array([1.0, 2.0]), np.array([3.0])])
    negatives = Ragged.of([np.array([4.0, 5.0, 6.0]), np.array([])])
    assert choice.of(positives, negatives).tolist() == [[2.0, 4.0, 6.0], [3.0, 0.0, 0.0]]
