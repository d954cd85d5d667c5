from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.embedded.choose import (
    SHARED,
    SKETCH,
    NearDuplicates,
    collapse,
    ranks,
    shares,
    shuffled,
    sketch,
    spread,
)

names = st.lists(st.text(max_size=8), max_size=40, unique=True)
sentence = st.lists(
    st.sampled_from(["the", "of", "a", "mean", "sum", "array", "value", "axis", "sorted"]), min_size=2, max_size=14
)
texts = st.lists(sentence.map(" ".join), max_size=25)


def nearly_equal(first: str, second: str) -> bool:
    one, other = set(sketch(first)), set(sketch(second))
    return len(one & other) * SKETCH >= SHARED * max(len(one), len(other))


@given(names, st.randoms(use_true_random=False))
def test_order_does_not_depend_on_the_order_given(items, random):
    mixed = list(items)
    random.shuffle(mixed)
    assert shuffled(mixed, str, 0, "x") == shuffled(items, str, 0, "x")
    assert sorted(shuffled(items, str, 0, "x")) == sorted(items)


def test_streams_and_seeds_are_independent():
    ids = [f"item {index}" for index in range(4000)]
    base = shares(ids, 0, "a")
    assert abs(base.mean() - 0.5) < 0.02
    for other in (shares(ids, 1, "a"), shares(ids, 0, "b")):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.06
    assert len(set(ranks(ids, 0, "a").tolist())) == len(ids)


@given(texts)
def test_collapse_keeps_what_a_search_over_all_earlier_ones_keeps(items):
    kept: list[str] = []
    for item in items:
        if not any(nearly_equal(item, earlier) for earlier in kept):
            kept.append(item)
    assert collapse(items, lambda item: (item,)) == kept


def test_collapse_compares_texts_of_the_same_place():
    items = [
        ("one two three", "alpha beta gamma"),
        ("alpha beta gamma", "one two three"),
        ("new words here", "alpha beta gamma"),
    ]
    assert collapse(items, lambda item: item) == items[:2]


@pytest.mark.parametrize(
    "other",
    [
        "Return the mean of the values along axis 1!",
        "return THE mean, of the values (along axis 22).",
    ],
)
def test_case_digits_and_punctuation_do_not_count(other):
    assert sketch(other) == sketch("Return the mean of the values along axis 0.")


def test_empty_collapse():
    assert collapse([], lambda item: (item,)) == []


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 5))
def test_spread(items, most):
    kept = spread(items, lambda item: item, most)
    assert all(kept.count(item) == min(most, items.count(item)) for item in set(items))


@given(texts, texts)
def test_what_is_near_a_remembered_text_is_found_and_not_remembered(known, asked):
    marks = [sketch(text) for text in known]
    seen = NearDuplicates(Counter(mark for one in marks for mark in one))
    kept = [text for text, one in zip(known, marks, strict=True) if seen.add(one)]
    for text in asked:
        assert seen.has(sketch(text)) == any(nearly_equal(text, other) for other in kept)
