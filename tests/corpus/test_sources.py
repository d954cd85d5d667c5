from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.sources import SourceFile, fragments, locate, source_digest
from boom_ray.errors import DataError
from tests.corpus.conftest import dataset, write_jsonl


@given(size=st.integers(1, 10**6), piece=st.integers(1, 10**6))
def test_fragments_cover_a_file_without_gap_or_overlap(size, piece):
    cut = fragments([SourceFile("f.jsonl", "jsonl", size)], 3, piece) if size / piece < 1000 else []
    for before, after in itertools.pairwise(cut):
        assert before.end == after.start
    if cut:
        assert (cut[0].start, cut[-1].end, cut[0].dataset) == (0, size, 3)
        assert all(one.end - one.start <= piece for one in cut)


def test_folder_glob_and_file(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "sub/c.csv", "notes.txt", ".hidden.jsonl", "_tmp/d.jsonl"):
        write_jsonl(tmp_path / name, [{}])
    names = [file.path.removeprefix(f"{tmp_path}/") for file in locate(dataset(tmp_path))]
    assert names == ["a.jsonl", "b.jsonl", "sub/c.csv"]
    assert [file.kind for file in locate(dataset(tmp_path))] == ["jsonl", "jsonl", "csv"]
    assert len(locate(dataset(f"{tmp_path}/?.jsonl"))) == 2
    assert [file.kind for file in locate(dataset(tmp_path / "notes.txt", format="jsonl"))] == ["jsonl"]


def test_digest_depends_on_content_alone(tmp_path):
    for folder, names in (("one", ("a", "b")), ("two", ("z", "y"))):
        for name, text in zip(names, ("first", "second"), strict=True):
            write_jsonl(tmp_path / folder / f"{name}.jsonl", [text])
    assert source_digest(locate(dataset(tmp_path / "one"))) == source_digest(locate(dataset(tmp_path / "two")))
    write_jsonl(tmp_path / "two" / "y.jsonl", ["changed"])
    assert source_digest(locate(dataset(tmp_path / "one"))) != source_digest(locate(dataset(tmp_path / "two")))


def test_compressed_files_are_one_fragment(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 10000))
    assert [(one.start, one.end) for one in fragments(locate(dataset(path)), 0, 10)] == [(0, None)]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("missing.jsonl", r"Dataset d: no such file: .*missing\.jsonl.*format=huggingface"),
        ("*.nothing", "no such file"),
        ("x.txt", r"form of .*x\.txt is not known by its name"),
        ("empty", "has no file to read"),
    ],
)
def test_what_cannot_be_located(tmp_path, source, text):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=text):
        locate(dataset(tmp_path / source))


def test_beir_folder_without_its_qrels(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", [])
    write_jsonl(tmp_path / "queries.jsonl", [])
    with pytest.raises(DataError, match=r"no qrels/train\.tsv"):
        locate(dataset(tmp_path))
