from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.embedded import rows
from boom_ray.corpus.embedded.parse import Function, Note
from boom_ray.corpus.embedded.rows import Labelled, Pair

LONG = "The values are added one after the other and then divided by how many there are."
CODE = "def f(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)"


def function(summary="Return the mean of values", description=LONG, code=CODE, parameters=()):
    return Function("pack.stats.basic:mean", summary, description, code, parameters)


def test_docs_and_code():
    assert rows.doc_pairs([function()], 500) == [Pair("pack.stats.basic:mean", "Return the mean of values", LONG)]
    assert rows.code_pairs([function()], 500) == [Pair("pack.stats.basic:mean", "Return the mean of values", CODE)]
    assert rows.doc_pairs([function()], 500)[0].module == "pack.stats.basic"


@pytest.mark.parametrize(
    "wrong",
    [
        function(summary="Mean of values"),
        function(summary="Deprecated, use the other function"),
        function(description="Too short."),
        function(description=f"Return the *mean* of values: {LONG}"),
    ],
    ids=["short query", "deprecated", "short answer", "query inside the answer"],
)
def test_docs_left_out(wrong):
    assert rows.doc_pairs([wrong], 500) == []


def test_code_left_out_when_too_short_or_class():
    assert rows.code_pairs([function(code="def f(x):\n    return x"), function(code="")], 500) == []


def test_comments_and_errors():
    notes = [
        Note(
            "m:f",
            "comment",
            "count the open files again",
            "total = sum(1 for item in files if not item.closed) + offset",
        ),
        Note("m:f", "comment", "short one", "total = sum(1 for item in files if not item.closed) + offset"),
        Note("m:f", "error", "the file {} is not open", "OSError"),
        Note("m:f", "error", "this must never happen here", "AssertionError"),
    ]
    assert [pair.query for pair in rows.comment_pairs(notes, 500)] == ["count the open files again"]
    assert rows.error_labels(notes, 500) == [Labelled("m:f", "the file {} is not open", "OSError")]


def test_parameters():
    found = function(
        parameters=(("axis", "Axis along which to add up."), ("x", "What to add up in the end."), ("out", "Short."))
    )
    assert rows.parameter_labels([found], 500) == [
        Labelled("pack.stats.basic:mean", "Axis along which to add up.", "axis")
    ]


def test_two_sentences_of_one_docstring():
    found = function(
        description="It is nan for empty arrays of any kind. a: The array. Integers are divided as floats are, always."
    )
    assert [pair.positive for pair in rows.sentence_pairs([found], 500)] == [
        "Integers are divided as floats are, always."
    ]


@pytest.mark.parametrize(
    ("owner", "topic"),
    [
        ("scipy.stats._basic:mean", "scipy.stats"),
        ("networkx.algorithms.flow.cut:f", "networkx.flow"),
        ("pandas.core.arrays.base:A.b", "pandas.arrays"),
        ("numpy:mean", None),
        ("scipy._lib.doccer:f", None),
        ("torch.utils.data:f", None),
    ],
)
def test_topics(owner, topic):
    assert rows.topic_of(owner) == topic


@given(st.text(max_size=200), st.integers(1, 60))
def test_clip(text, limit):
    short = rows.clip(text, limit)
    assert len(short) <= limit
    assert text.startswith(short) or text.lstrip().startswith(short)
    assert len(text) > limit or short == text


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("the mean", "It is The Mean, always", True),
        ("the mean", "the meaning", False),
        ("a b", "a_b", True),
        ("a b", "b a", False),
    ],
)
def test_contained(query, text, expected):
    assert rows.is_contained(query, text) is expected
