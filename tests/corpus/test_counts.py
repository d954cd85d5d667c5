from __future__ import annotations

import pytest

from boom_ray.corpus.counts import check_scores, check_taught, counts_table, dataset_figures, empty_message
from boom_ray.errors import DataError
from boom_ray.store import Artifact
from tests.corpus.conftest import dataset

READ = {
    "read": 22,
    "contrastive": 14,
    "taught": 9,
    "rejected: empty query": 2,
    "rejected: wrong type": 1,
    "below positive_from": 3,
    "negatives empty": 5,
    "negatives over max_negatives": 7,
}
SEALED = {
    "rows": 10,
    "duplicates": 2,
    "overlapping": 1,
    "overlapping_by_task": {"task": 1},
    "near_duplicates": 2,
    "near_duplicates_by_task": {"task": 2, "other": 1},
    "set_aside": {"only text of its label": 1},
    "tokens": {"queries": 10, "query_tokens": 45, "positives": 4, "positive_tokens": 10, "negatives": 0},
}


def test_every_row_read_is_accounted_for():
    facts = dataset_figures(READ, SEALED)
    left_out = facts["duplicates"] + facts["overlapping"] + facts["near_duplicates"] + sum(facts["rejected"].values())
    assert facts["read"] == facts["rows"] + left_out + sum(facts["set_aside"].values())
    assert facts["negatives_left_out"] == {"empty": 5, "over max_negatives": 7}
    assert facts["taught"] == 9
    assert facts["mean_tokens"] == {"query": 4.5, "positive": 2.5, "negative": 0.0}


def test_table_says_why():
    facts = dataset_figures(READ, SEALED) | {"task_type": "sts", "in_batch": True, "loss": {"kind": "cosent"}}
    corpus = Artifact("corpus", "k", "u", {}, {}, {"datasets": {"b": facts, "a": facts}}, "f", {})
    first, second = counts_table(corpus)
    assert (first["dataset"], second["dataset"]) == ("a", "b")
    assert (first["loss"], first["in-batch"]) == ("cosent", "-")
    assert (first["read"], first["kept"], first["rejected"], first["set aside"]) == (22, 10, 3, 4)
    assert (first["overlapping"], first["near-duplicate"]) == (1, 2)
    assert first["why"] == (
        "empty query: 2; wrong type: 1; only text of its label: 1; below positive_from: 3; overlaps task: 1; "
        "near-duplicates of task: 2; near-duplicates of other: 1; "
        "negatives empty: 5; negatives over max_negatives: 7"
    )


def test_a_corpus_of_an_earlier_version_has_no_near_duplicates():
    facts = dataset_figures(READ, SEALED) | {"task_type": "sts", "in_batch": True, "loss": {"kind": "infonce"}}
    old = {name: value for name, value in facts.items() if not name.startswith("near_duplicates")}
    (row,) = counts_table(Artifact("corpus", "k", "u", {}, {}, {"datasets": {"a": old}}, "f", {}))
    assert row["near-duplicate"] == 0
    assert "near-duplicates" not in row["why"]


def test_an_empty_dataset_says_where_its_rows_went():
    facts = dataset_figures(
        {"read": 3, "below positive_from": 3}, SEALED | {"rows": 0, "duplicates": 0, "overlapping": 0}
    )
    assert (
        "keeps no row of 3 read (nearly in an evaluation set: 2, only text of its label: 1, below positive_from: 3)"
        in empty_message("d", facts)
    )


@pytest.mark.parametrize("kind", ["cosent", "angle"])
def test_a_graded_loss_without_any_score_names_the_columns(kind):
    one = dataset("x", "sts", loss={"kind": kind})
    check_scores(one, {"read": 3, "contrastive": 1, "rejected: missing score column": 2})
    check_scores(one, {"read": 3, "rejected: malformed JSON": 3})  # the reason is another
    with pytest.raises(DataError) as caught:
        check_scores(one, {"read": 3, "rejected: missing score column": 2, "rejected: malformed JSON": 1})
    assert str(caught.value) == (
        f"Dataset d: a score column (score, label) is missing, which corpus.datasets.d.loss.kind={kind} needs: name it "
        "in corpus.datasets.d.columns.score, or choose loss.kind=infonce."
    )


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_a_loss_that_follows_a_teacher_needs_one(kind):
    one = dataset("x", loss={"kind": kind})
    check_scores(one, {"read": 3, "contrastive": 3, "taught": 1})
    check_scores(one, {"read": 3, "rejected: malformed JSON": 3})
    for fault in (lambda: check_taught(one, 0), lambda: check_scores(one, {"read": 3, "contrastive": 3})):
        with pytest.raises(DataError) as caught:
            fault()
        assert str(caught.value) == (
            f"Dataset d: corpus.datasets.d.loss.kind={kind} needs a teacher's scores, but no example has both of the "
            "columns pos_scores and neg_scores. Add them to the source as lists of numbers, one per text of pos and "
            "neg, or choose loss.kind=infonce."
        )


def test_infonce_needs_no_scores():
    check_scores(dataset("x"), {"read": 3, "contrastive": 3})
    check_taught(dataset("x"), 0)
