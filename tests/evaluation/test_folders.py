from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import LabelledData, PairData, RankingData, RetrievalData, read_folder, train_split
from tests.evaluation.task_folders import write_jsonl, write_retrieval


def one_file(folder: Path, kind: str, rows: list[Any], **fields: Any) -> TaskConfig:
    write_jsonl(folder / "test.jsonl", rows)
    return TaskConfig(name="task", path=str(folder), type=kind, **fields)


def fault(task: TaskConfig) -> str:
    with pytest.raises(EvaluationError) as caught:
        read_folder(task)
    return str(caught.value)


def test_retrieval_keeps_the_queries_of_its_split_and_all_passages(tmp_path: Path) -> None:
    task = write_retrieval(tmp_path, [("q0", "p1", 1), ("q0", "p2", 0), ("q1", "p0", 2)])
    (tmp_path / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\tp{n}\t1\n" for n in range(2, 6)), encoding="utf-8"
    )
    data = read_folder(task)
    assert isinstance(data, RetrievalData)
    assert list(data.queries) == ["q0", "q1"]
    assert data.relevant == {"q0": {"p1": 1, "p2": 0}, "q1": {"p0": 2}}
    assert len(data.corpus) == 30
    judged = set(data.judged())
    assert data.corpus["p1"][1] in judged and " ".join(data.corpus["p0"]) in judged
    assert data.corpus["p2"][1] not in judged


def test_retrieval_reads_qrels_without_a_header(tmp_path: Path) -> None:
    task = write_retrieval(tmp_path, queries=1)
    (tmp_path / "qrels" / "test.tsv").write_text("q0\tp0\t1\n", encoding="utf-8")
    data = read_folder(task)
    assert isinstance(data, RetrievalData) and data.relevant == {"q0": {"p0": 1}}


def test_no_such_folder(tmp_path: Path) -> None:
    task = TaskConfig(name="gone", path=str(tmp_path / "gone"), type="sts")
    assert "Task gone: there is no folder" in fault(task)


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    task = one_file(tmp_path, "sts", [{"x": 1}], split="dev")
    assert "dev.jsonl does not exist; files beside it: test.jsonl" in fault(task)


def test_empty_qrels(tmp_path: Path) -> None:
    assert "holds no judgements" in fault(write_retrieval(tmp_path, []))


@pytest.mark.parametrize("extra", [[], [("q5", "p5", 0)]])
def test_a_query_without_relevant_passage(tmp_path: Path, extra: list[Any]) -> None:
    task = write_retrieval(tmp_path, [(f"q{n}", f"p{n}", 1) for n in range(5)] + extra)
    assert "1 queries of queries.jsonl have no relevant passage, e.g. 'q5'" in fault(task)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("nobody", "p1", 1), "test.tsv:3: id 'nobody' is not in queries.jsonl"),
        (("q1", "nothing", 1), "test.tsv:3: id 'nothing' is not in corpus.jsonl"),
        (("q0", "p0", 2), "test.tsv:3: 'q0' and 'p0' were given another score before"),
        (("q1", "p1", "high"), "test.tsv:3: a line must be query-id, corpus-id and a whole number"),
        (("q1", 1), "test.tsv:3: a line must be query-id, corpus-id and a whole number"),
    ],
)
def test_bad_qrels_are_named_by_line(tmp_path: Path, row: Any, message: str) -> None:
    assert message in fault(write_retrieval(tmp_path, [("q0", "p0", 1), row], queries=2))


def test_duplicate_ids(tmp_path: Path) -> None:
    task = write_retrieval(tmp_path)
    write_jsonl(
        tmp_path / "corpus.jsonl", [{"_id": "a", "text": "x"}, {"_id": "b", "text": "y"}, {"_id": "a", "text": "z"}]
    )
    assert "corpus.jsonl:3: _id 'a' was used before, in line 1" in fault(task)


def test_malformed_json_names_file_and_line(tmp_path: Path) -> None:
    task = one_file(tmp_path, "clustering", [{"text": "a", "label": 1}])
    with (tmp_path / "test.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('\n{"text": "b", \n')
    assert f"{tmp_path / 'test.jsonl'}:3: not valid JSON" in fault(task)


def test_not_utf8_names_the_file(tmp_path: Path) -> None:
    task = one_file(tmp_path, "clustering", [{"text": "a", "label": 1}])
    (tmp_path / "test.jsonl").write_bytes(b'{"text": "\xff\xfe", "label": 1}\n')
    assert "test.jsonl:1: cannot be read" in fault(task)


@pytest.mark.parametrize("kind", ["classification", "clustering"])
def test_one_class(tmp_path: Path, kind: str) -> None:
    task = one_file(tmp_path, kind, [{"text": "a", "label": 1}, {"text": "b", "label": 1}])
    write_jsonl(tmp_path / "train.jsonl", [{"text": "c", "label": 1}, {"text": "d", "label": 2}])
    assert "test.jsonl: all rows have the same label" in fault(task)


def test_labels_that_the_probe_never_sees(tmp_path: Path) -> None:
    task = one_file(tmp_path, "classification", [{"text": "a", "label": 1}, {"text": "b", "label": 2}])
    write_jsonl(tmp_path / "train.jsonl", [{"text": "a", "label": "one"}, {"text": "b", "label": "two"}])
    assert "none of its labels occurs in train.jsonl" in fault(task)


def test_scores_out_of_range(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": 0.5}, {"sentence1": "a", "sentence2": "b", "score": 3}]
    task = one_file(tmp_path, "sts", rows, score_range=(0, 1))
    assert "test.jsonl:2: score 3 is outside [0, 1]" in fault(task)
    assert read_folder(task.model_copy(update={"score_range": (0.0, 3.0)})) == PairData(
        ["a"] * 2, ["b"] * 2, [0.5, 3.0]
    )


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("sts", {"sentence1": "a", "sentence2": "b", "score": "4"}, 'score must be a number, not "4"'),
        ("sts", {"sentence1": "a", "sentence2": "b"}, "there is no column score; the columns are sentence1, sentence2"),
        ("sts", {"sentence1": " ", "sentence2": "b", "score": 1}, "sentence1 is empty"),
        ("sts", {"sentence1": 7, "sentence2": "b", "score": 1}, "sentence1 must be text, not 7"),
        ("sts", ["a", "b"], "a line must be one JSON object"),
        ("reranking", {"query": "a", "positive": [], "negative": ["b"]}, "positive must be a list with at least one"),
        ("reranking", {"query": "a", "positive": "b", "negative": ["b"]}, "positive must be a list with at least one"),
        ("reranking", {"query": "a", "positive": ["b"], "negative": [""]}, "negative holds"),
        ("bitext", {"query": "a", "pos": ["b", "c"]}, "a bitext row needs exactly one"),
        ("clustering", {"text": "a", "label": 0.5}, "label must be a whole number or text, not 0.5"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, kind: str, row: Any, message: str) -> None:
    text = fault(one_file(tmp_path, kind, [row]))
    assert text.startswith(f"{tmp_path / 'test.jsonl'}:1: ") and message in text


def test_equal_scores_and_one_sided_pairs(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": 1}] * 2
    assert "all scores are equal" in fault(one_file(tmp_path, "sts", rows))
    assert "pairs need both scores" in fault(one_file(tmp_path, "pair", rows))


def test_text_labels_are_numbered_alike_in_both_splits(tmp_path: Path) -> None:
    task = one_file(tmp_path, "classification", [{"text": "a", "label": "z"}, {"text": "b", "label": "k"}])
    write_jsonl(tmp_path / "train.jsonl", [{"text": "c", "label": "k"}, {"text": "d", "label": "z"}])
    assert read_folder(task) == LabelledData(["a", "b"], [1, 0], ["c", "d"], [0, 1])


def test_number_labels_stay(tmp_path: Path) -> None:
    data = read_folder(one_file(tmp_path, "clustering", [{"text": "a", "label": 40}, {"text": "b", "label": 7}]))
    assert isinstance(data, LabelledData) and data.labels == [40, 7]


def test_reranking_prefers_its_own_file(tmp_path: Path) -> None:
    task = one_file(tmp_path, "reranking", [{"sentence1": "pair"}])
    write_jsonl(tmp_path / "rerank.test.jsonl", [{"query": "a", "positive": ["b"], "negative": ["c", "d"]}])
    data = read_folder(task)
    assert data == RankingData(["a"], [["b"]], [["c", "d"]])
    assert list(data.judged()) == ["a", "b"] and list(data.encoded()) == ["a", "b", "c", "d"]


def test_bitext_reads_flagembeddings_columns(tmp_path: Path) -> None:
    task = one_file(tmp_path, "bitext", [{"query": "a", "pos": ["b"], "neg": []}, {"sentence1": "c", "sentence2": "d"}])
    assert read_folder(task) == PairData(["a", "c"], ["b", "d"], [1.0, 1.0])


def test_the_probe_is_trained_on_the_split_of_the_same_name() -> None:
    assert train_split("test") == "train"
    assert train_split("curekart.test") == "curekart.train"
