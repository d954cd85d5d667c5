from __future__ import annotations

import fsspec
import pytest

from boom_ray.corpus import beir
from boom_ray.errors import DataError
from tests.corpus.conftest import write_jsonl

FS = fsspec.filesystem("file")


@pytest.fixture
def folder(tmp_path):
    write_jsonl(
        tmp_path / "corpus.jsonl",
        [{"_id": f"p{n}", "title": "T" if n == 0 else "", "text": f"passage {n}"} for n in range(5)],
    )
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(4)])
    return tmp_path


def qrels(folder, *lines):
    (folder / "q.tsv").write_text("".join(f"{line}\n" for line in lines))


def read(folder, share=0, shares=1):
    return list(beir.read(FS, str(folder), "q.tsv", share, shares))


def test_queries_join_their_judged_passages(folder):
    qrels(folder, "query-id\tcorpus-id\tscore", "q1\tp3\t1", "q0\tp1\t0", "q1\tp0\t2", "q0\tp2\t1", "q1\tp4\t-1")
    assert read(folder) == [
        (2, {"query": "query 1", "pos": ["T passage 0", "passage 3"], "neg": ["passage 4"]}),
        (3, {"query": "query 0", "pos": ["passage 2"], "neg": ["passage 1"]}),
    ]


def test_shares_divide_the_queries(folder):
    qrels(folder, *[f"q{n}\tp{n}\t1" for n in range(4)])
    divided = [row for share in range(3) for row in read(folder, share, 3)]
    assert sorted(divided, key=lambda pair: pair[0]) == read(folder)


def test_ids_that_are_nowhere(folder):
    qrels(folder, "q9\tp1\t1", "q1\tp9\t1")
    assert read(folder) == [(1, "query q9 is not in queries.jsonl"), (2, "passage p9 is not in corpus.jsonl")]


@pytest.mark.parametrize("line", ["q1 p1 1", "q1\tp1\tmany", "q1\tp1"])
def test_malformed_qrels(folder, line):
    qrels(folder, "q0\tp1\t1", line)
    with pytest.raises(DataError, match=r"q\.tsv:2: expected query id"):
        read(folder)


@pytest.mark.parametrize("line", ["{", '{"_id": "p1"}', '{"_id": "p1", "text": 3}'])
def test_malformed_passages(folder, line):
    qrels(folder, "q0\tp1\t1")
    write_jsonl(folder / "corpus.jsonl", [{"_id": "x", "text": "y"}, line])
    with pytest.raises(DataError, match=r"corpus\.jsonl:2"):
        read(folder)
