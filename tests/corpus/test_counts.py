from __future__ import annotations

from boom_ray.corpus.counts import counts_table, dataset_figures, empty_message
from boom_ray.store import Artifact

READ = {
    "read": 20,
    "contrastive": 14,
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
    "set_aside": {"only text of its label": 1},
    "tokens": {"queries": 10, "query_tokens": 45, "positives": 4, "positive_tokens": 10, "negatives": 0},
}


def test_every_row_read_is_accounted_for():
    facts = dataset_figures(READ, SEALED)
    left_out = facts["duplicates"] + facts["overlapping"] + sum(facts["rejected"].values())
    assert facts["read"] == facts["rows"] + left_out + sum(facts["set_aside"].values())
    assert facts["negatives_left_out"] == {"empty": 5, "over max_negatives": 7}
    assert facts["mean_tokens"] == {"query": 4.5, "positive": 2.5, "negative": 0.0}


def test_table_says_why():
    facts = dataset_figures(READ, SEALED) | {"task_type": "sts", "in_batch": True}
    corpus = Artifact("corpus", "k", "u", {}, {}, {"datasets": {"b": facts, "a": facts}}, "f", {})
    first, second = counts_table(corpus)
    assert (first["dataset"], second["dataset"]) == ("a", "b")
    assert (first["read"], first["kept"], first["rejected"], first["set aside"]) == (20, 10, 3, 4)
    assert first["why"] == (
        "empty query: 2; wrong type: 1; only text of its label: 1; below positive_from: 3; overlaps task: 1; "
        "negatives empty: 5; negatives over max_negatives: 7"
    )


def test_an_empty_dataset_says_where_its_rows_went():
    facts = dataset_figures(
        {"read": 3, "below positive_from": 3}, SEALED | {"rows": 0, "duplicates": 0, "overlapping": 0}
    )
    assert "keeps no row of 3 read (only text of its label: 1, below positive_from: 3)" in empty_message("d", facts)
