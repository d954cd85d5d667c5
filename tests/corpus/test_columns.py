from __future__ import annotations

import re

import pytest

from boom_ray.corpus.columns import Roles, find_roles
from boom_ray.corpus.readers import BadRow
from tests.corpus.conftest import dataset


def roles(present: str, task_type: str = "retrieval", kind: str = "infonce", **columns):
    return find_roles(dataset("x", task_type, columns=columns, loss={"kind": kind}), tuple(present.split()))


@pytest.mark.parametrize(
    ("present", "task_type", "expected"),
    [
        (
            "query pos neg prompt type pos_scores neg_scores",
            "retrieval",
            Roles("query", "pos", ("neg",), None, None, None, "prompt", "pos_scores", "neg_scores"),
        ),
        ("anchor positive", "retrieval", Roles("anchor", "positive")),
        (
            "negative_10 negative_2 anchor positive negative_1 negative",
            "retrieval",
            Roles("anchor", "positive", ("negative", "negative_1", "negative_2", "negative_10")),
        ),
        ("sentence1 sentence2 score", "sts", Roles("sentence1", "sentence2", score="score")),
        ("sentence1 sentence2 label", "pair", Roles("sentence1", "sentence2", score="label")),
        ("query positive score", "retrieval", Roles("query", "positive")),
        ("query positive negative", "reranking", Roles("query", "positive", ("negative",))),
        ("text label label_text", "classification", Roles("text", label="label", label_text="label_text")),
        ("query pos neg", "classification", Roles("query", "pos", ("neg",))),
    ],
)
def test_usual_names(present, task_type, expected):
    assert roles(present, task_type) == expected


def test_named_columns_come_first():
    found = roles("query a b c d e", query="a", positive="b", negative=("d", "c"), score="e")
    assert found == Roles("a", "b", ("d", "c"), "e")
    assert roles("query pos body topic", "clustering", text="body", label="topic") == Roles("body", label="topic")


@pytest.mark.parametrize("kind", ["cosent", "angle"])
def test_a_graded_loss_looks_for_scores_in_every_task(kind):
    assert roles("query positive label", "retrieval", kind) == Roles("query", "positive", score="label")
    assert roles("query positive score grade", "bitext", kind, score="grade").score == "grade"
    assert roles("sentence1 sentence2 score", "classification", kind).score == "score"


@pytest.mark.parametrize(("present", "task_type"), [("query pos neg", "sts"), ("text label", "classification")])
def test_a_graded_loss_needs_scores(present, task_type):
    with pytest.raises(BadRow) as caught:
        roles(present, task_type, "cosent")
    assert caught.value.reason == "missing score column"
    assert caught.value.detail == (
        "a score column (score, label) is missing, which corpus.datasets.d.loss.kind=cosent needs: name it in "
        f"corpus.datasets.d.columns.score, or choose loss.kind=infonce; present are {', '.join(present.split())}"
    )


@pytest.mark.parametrize(
    ("present", "task_type", "columns", "text"),
    [
        ("title body", "retrieval", {}, r"a query column \(query, anchor.*present are title, body"),
        ("query body", "retrieval", {}, r"a positive column \(pos, .*present are query, body"),
        ("text body", "classification", {}, "a label column .*present are text, body"),
        ("query pos", "retrieval", {"query": "question"}, r"query=question that corpus\.datasets\.d\.columns names"),
        ("query pos", "retrieval", {"negative": ("hard",)}, "negative=hard"),
        ("", "retrieval", {}, "present are none"),
    ],
)
def test_a_missing_column_names_those_present(present, task_type, columns, text):
    with pytest.raises(BadRow) as caught:
        roles(present, task_type, **columns)
    assert caught.value.reason == "missing column"
    assert re.search(text, caught.value.detail)
