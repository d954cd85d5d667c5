from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.examples import BELOW, TRIMMED, Example, clean, to_example
from boom_ray.corpus.readers import BadRow
from tests.corpus.conftest import dataset


def make(row, task_type="retrieval", max_negatives=32, counts=None, **fields):
    return to_example(row, dataset("x", task_type, **fields), max_negatives, Counter() if counts is None else counts)


def test_flagembedding_row():
    row = {"query": " q ", "pos": ["p1", "p2"], "neg": ["n1", "n2"], "prompt": "do", "type": "normal"}
    scores = {"pos_scores": [1, 0.5], "neg_scores": [0.25, 0]}
    assert make(row | scores) == Example("q", ["p1", "p2"], ["n1", "n2"], None, None, "do", [1, 0.5], [0.25, 0])


def test_triplet_row():
    assert make({"anchor": "a", "positive": "p", "negative": "n"}) == Example("a", ["p"], ["n"])
    assert make({"anchor": "a", "positive": "p", "negative": None}) == Example("a", ["p"])


def test_control_characters_and_lone_surrogates_become_spaces():
    assert clean(" a\x00\x01b\tc\nd\x7f\ud800e ") == "a b\tc\nd e"
    assert clean("\x00") == ""


def test_negatives_are_counted_when_left_out():
    counts = Counter()
    row = {
        "query": "q",
        "pos": ["p"],
        "neg": ["", "n1", "q", "p", "n1", "n2", "n3"],
        "neg_scores": [0, 1, 2, 3, 4, 5, 6],
    }
    found = make(row, max_negatives=2, counts=counts)
    assert (found.negatives, found.negative_scores) == (["n1", "n2"], [1, 5])
    assert counts == {
        "negatives empty": 1,
        "negatives equal to the query": 1,
        "negatives equal to a positive": 1,
        "negatives repeated": 1,
        TRIMMED: 1,
    }


@given(low=st.floats(-10, 10), width=st.floats(0.5, 10), share=st.floats(0, 1), start=st.floats(0, 1))
def test_scores_are_shares_of_their_range(low, width, share, start):
    score = min(low + share * width, low + width)
    counts = Counter()
    row = {"sentence1": "a", "sentence2": "b", "score": score}
    found = make(row, "sts", counts=counts, score_range=(low, low + width), positive_from=start)
    if found is None:
        assert counts[BELOW] == 1
        assert (score - low) / width < start + 1e-9
    else:
        assert found.score == pytest.approx((score - low) / width, abs=1e-6)
        assert found.score >= start


@pytest.mark.parametrize("kind", ["cosent", "angle"])
@pytest.mark.parametrize("score", [0, 2, 5])
def test_a_graded_loss_keeps_pairs_of_every_score(kind, score):
    counts = Counter()
    row = {"sentence1": "a", "sentence2": "b", "score": score}
    found = make(row, "sts", counts=counts, score_range=(0, 5), loss={"kind": kind})
    assert found == Example("a", ["b"], score=score / 5)
    assert not counts


@pytest.mark.parametrize(
    ("scores", "taught"),
    [({"pos_scores": [1], "neg_scores": [0]}, True), ({"pos_scores": [1]}, False), ({"neg_scores": [0]}, False)],
)
def test_an_example_is_taught_when_both_sides_have_scores(scores, taught):
    assert make({"query": "q", "pos": ["p"], "neg": ["n"]} | scores).is_taught is taught


def test_labels_of_pairs_are_scores():
    assert make({"sentence1": "a", "sentence2": "b", "label": 1}, "pair") == Example("a", ["b"], score=1.0)
    assert make({"sentence1": "a", "sentence2": "b", "label": 0}, "pair") is None
    assert make({"sentence1": "a", "sentence2": "b", "label": "1"}, "pair").score == 1.0


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"text": "t", "label": 3}, "3"),
        ({"text": "t", "label": "x"}, "x"),
        ({"text": "t", "label": 3, "label_text": "three"}, "three"),
        ({"text": "t", "label": 3, "label_text": None}, "3"),
    ],
)
def test_labelled_rows(row, label):
    assert make(row, "classification") == Example("t", label=label)


@pytest.mark.parametrize(
    ("row", "task_type", "reason"),
    [
        ({"query": " ", "pos": ["p"]}, "retrieval", "empty query"),
        ({"query": None, "pos": ["p"]}, "retrieval", "empty query"),
        ({"query": "\x00", "pos": ["p"]}, "retrieval", "empty query"),
        ({"query": 3, "pos": ["p"]}, "retrieval", "wrong type"),
        ({"query": "q", "pos": []}, "retrieval", "empty positive"),
        ({"query": "q", "pos": ["p", ""]}, "retrieval", "empty positive"),
        ({"query": "q", "pos": None}, "retrieval", "empty positive"),
        ({"query": "q", "pos": [1]}, "retrieval", "wrong type"),
        ({"query": "q", "pos": {"text": "p"}}, "retrieval", "wrong type"),
        ({"query": "q", "pos": ["p"], "neg": [["n"]]}, "retrieval", "wrong type"),
        ({"query": "q", "pos": ["p"], "prompt": 1}, "retrieval", "wrong type"),
        ({"query": "q", "pos": ["p"], "pos_scores": [1, 2]}, "retrieval", "wrong number of scores"),
        ({"query": "q", "pos": ["p"], "pos_scores": ["high"]}, "retrieval", "wrong type"),
        ({"sentence1": "a", "sentence2": "b", "score": 1.01}, "sts", "score outside its range"),
        ({"sentence1": "a", "sentence2": "b", "score": -1}, "sts", "score outside its range"),
        ({"sentence1": "a", "sentence2": "b", "score": float("nan")}, "sts", "wrong type"),
        ({"sentence1": "a", "sentence2": "b", "score": None}, "sts", "wrong type"),
        ({"text": "", "label": 1}, "classification", "empty query"),
        ({"text": "t", "label": None}, "classification", "wrong type"),
        ({"text": "t", "label": [1, 2]}, "classification", "wrong type"),
        ({"text": "t", "label": " "}, "classification", "empty label"),
    ],
)
def test_bad_rows(row, task_type, reason):
    with pytest.raises(BadRow) as caught:
        make(row, task_type)
    assert caught.value.reason == reason


texts = st.lists(st.text(max_size=3), max_size=3)


@given(first=st.tuples(st.text(max_size=3), texts, texts), second=st.tuples(st.text(max_size=3), texts, texts))
def test_ids_are_equal_only_for_equal_content(first, second):
    one, other = Example(*first), Example(*second)
    assert (one.id() == other.id()) == (first == second)


def test_every_field_counts_for_the_id():
    variants = [
        Example("q", ["p"]),
        Example("q", ["p"], score=1.0),
        Example("q", ["p"], label="1.0"),
        Example("q", ["p"], instruction="1.0"),
        Example("q", ["p"], positive_scores=[1.0]),
        Example("q", ["p"], negative_scores=[1.0]),
        Example("q", [], ["p"]),
    ]
    assert len({one.id() for one in variants}) == len(variants)
