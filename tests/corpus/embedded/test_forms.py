from __future__ import annotations

import json
from collections import Counter

from boom_ray.corpus.embedded import forms
from boom_ray.corpus.embedded.rows import Labelled, Pair


def make(module, count, package="p"):
    return [
        Pair(f"{package}.{module}:f{i}", f"{package} {module} query {i}", f"{package} {module} answer {i}")
        for i in range(count)
    ]


def test_negatives_are_other_answers_of_the_module():
    pairs = [*make("one", 5), *make("two", 2), *make("alone", 1)]
    rows = forms.retrieval_rows(pairs, 3, seed=0)
    assert [len(row["neg"]) for row in rows] == [3] * 5 + [1] * 2 + [0]
    for pair, row in zip(pairs, rows, strict=True):
        module = pair.module.split(".")[1]
        assert row["pos"] == [pair.positive]
        assert pair.positive not in row["neg"]
        assert len(set(row["neg"])) == len(row["neg"])
        assert all(f" {module} answer" in text for text in row["neg"])


def test_negatives_are_not_always_the_same_ones():
    used = Counter(text for row in forms.retrieval_rows(make("one", 40), 2, seed=0) for text in row["neg"])
    assert len(used) > 20


def test_own_answers_and_equal_texts_are_no_negatives():
    twice = [Pair("p.m:f", "q1", "same"), Pair("p.m:f", "q2", "other of f"), Pair("p.m:g", "q3", "same")]
    assert [row["neg"] for row in forms.retrieval_rows(twice, 5, seed=0)] == [[], ["same"], ["other of f"]]


def test_retrieval_folder_answers_every_query_and_prefers_neighbours():
    asked, near, far = make("one", 3), make("one", 6)[3:], make("two", 9)
    files = forms.retrieval_test([*asked, *far, *near], queries=3, passages=8)
    corpus = {row["_id"]: row["text"] for row in files["corpus.jsonl"]}
    queries = {row["_id"]: row["text"] for row in files["queries.jsonl"]}
    assert len(corpus) == 8
    assert {pair.positive for pair in near} <= set(corpus.values())
    assert [(queries[row["query-id"]], corpus[row["corpus-id"]]) for row in files["qrels/test.tsv"]] == [
        (pair.query, pair.positive) for pair in asked
    ]


def test_reranking_needs_enough_neighbours():
    rows = forms.reranking_test([*make("one", 6), *make("two", 3)], queries=10, candidates=4, seed=0)["test.jsonl"]
    assert len(rows) == 6
    assert all(len(row["negative"]) == 4 and row["positive"][0] not in row["negative"] for row in rows)


def test_pairs_are_half_of_one_function_half_of_two():
    rows = forms.pair_test(make("one", 30), rows=10, seed=0)["test.jsonl"]
    assert Counter(row["score"] for row in rows) == {1: 5, 0: 5}
    for row in rows:
        same = row["sentence1"].replace("query", "answer") == row["sentence2"]
        assert same == bool(row["score"])


def test_grades_say_how_near_functions_stand():
    pairs = [
        pair
        for turn in range(8)
        for package in ("p", "r")
        for module in ("a.x", "b.y")
        for pair in make(module, 20, package)[turn * 2 : turn * 2 + 2]
    ]
    rows = forms.sts_test(pairs, rows=16, seed=0)["test.jsonl"]
    assert Counter(row["score"] for row in rows) == {5.0: 4, 3.0: 4, 1.5: 4, 0.0: 4}
    for row in rows:
        package, module, _, number = row["sentence1"].split()
        other_package, other_module, _, other_number = row["sentence2"].split()
        near = [package == other_package, module == other_module, number == other_number]
        expected = {5.0: [True, True, True], 3.0: [True, True, False]}.get(row["score"])
        assert near == expected if expected else near[0] == (row["score"] == 1.5)


def test_balanced_takes_frequent_labels_and_caps_them():
    rows = [
        Labelled("m:f", f"{label} {i}", label)
        for label, n in (("a", 9), ("b", 5), ("c", 4), ("d", 1))
        for i in range(n)
    ]
    assert Counter(row.label for row in forms.balanced(rows, labels=3, least=2, most=4)) == {"a": 4, "b": 4, "c": 4}
    assert Counter(row.label for row in forms.balanced(rows, labels=4, least=5, most=9)) == {"a": 9, "b": 5}


def test_label_numbers_follow_names():
    rows = forms.labelled_rows([Labelled("m:f", "x", "late"), Labelled("m:f", "y", "early")])
    assert rows == [{"text": "x", "label": 1, "label_text": "late"}, {"text": "y", "label": 0, "label_text": "early"}]


def test_files(tmp_path):
    forms.write_rows(tmp_path / "a" / "rows.jsonl", [{"text": "é\u2028"}, {"text": "b"}])
    forms.write_rows(tmp_path / "qrels" / "test.tsv", [{"query-id": "q0", "corpus-id": "p0", "score": 1}])
    lines = (tmp_path / "a" / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == ["é\u2028", "b"]
    assert (tmp_path / "qrels" / "test.tsv").read_text() == "query-id\tcorpus-id\tscore\nq0\tp0\t1\n"


def test_probe_and_test_of_a_classification_are_of_different_functions_and_of_the_same_labels():
    rows = [
        Labelled(f"m:f{i % 40}", f"{label} text {i}", label)
        for label, n in (("a", 200), ("b", 80), ("c", 4), ("d", 30))
        for i in range(n)
    ] + [Labelled("m:alone", f"e text {i}", "e") for i in range(20)]
    files = forms.classification_test(rows, labels=3, least=5, most=12, probe=6, seed=0)
    owners = {row.text: row.owner for row in rows}
    probe, test = ({row["text"] for row in files[name]} for name in ("train.jsonl", "test.jsonl"))
    assert not {owners[text] for text in probe} & {owners[text] for text in test}
    assert Counter(row["label_text"] for row in files["test.jsonl"]) == {"a": 12, "b": 12, "d": 12}
    assert Counter(row["label_text"] for row in files["train.jsonl"]) == {"a": 6, "b": 6, "d": 6}
