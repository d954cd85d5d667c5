from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.corpus.readers import BadRow, Reader
from boom_ray.corpus.sources import Fragment, fragments, locate
from boom_ray.errors import DataError
from tests.corpus.conftest import dataset


def read(path: Path, fragment_bytes: int = 1 << 20, **fields):
    result = []
    for fragment in fragments(locate(dataset(path, **fields)), 0, fragment_bytes):
        reader = Reader(fragment)
        result += [(reader.place(number)[1], row) for number, row in reader.rows()]
    return result


@settings(deadline=None, max_examples=60)
@given(
    lines=st.lists(st.one_of(st.just(""), st.integers(0, 10**12).map(lambda n: json.dumps({"n": n}))), max_size=30),
    fragment_bytes=st.integers(1, 60),
    last_newline=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_any_cut_gives_every_line_once_with_its_number(tmp_path_factory, lines, fragment_bytes, last_newline, ending):
    path = tmp_path_factory.mktemp("r") / "x.jsonl"
    path.write_bytes((ending.join(lines) + (ending if last_newline else "")).encode())
    expected = [(number, json.loads(line)) for number, line in enumerate(lines, 1) if line]
    assert read(path, fragment_bytes) == expected


def test_malformed_lines_do_not_stop_the_others(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{oops\n[1]\n{"a": "\xff"}\n{"a": 2}\n')
    rows = read(path, fragment_bytes=9)
    assert [number for number, _ in rows] == [1, 2, 3, 4, 5]
    assert [row.reason for _, row in rows[1:4]] == ["malformed JSON", "not a JSON object", "not UTF-8"]
    assert all(isinstance(row, BadRow) for _, row in rows[1:4])
    assert rows[4][1] == {"a": 2}


def test_gzip_is_read_whole(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n\n{"a": 2}\n'))
    assert read(path, 4) == [(1, {"a": 1}), (3, {"a": 2})]


def test_csv_with_quoted_newlines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffquery,positive\n"a ""b""","two\nlines"\nshort\n', encoding="utf-8")
    rows = read(path)
    assert rows[0] == (3, {"query": 'a "b"', "positive": "two\nlines"})
    assert rows[1][0] == 4
    assert rows[1][1].reason == "wrong number of fields"


def test_tsv(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n1,5\t2\n")
    assert read(path) == [(2, {"a": "1,5", "b": "2"})]


@pytest.mark.parametrize("fragment_bytes", [1, 10**9])
def test_parquet_rows_are_numbered_through_row_groups(tmp_path, fragment_bytes):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"q": [f"text {n}" for n in range(2500)]}), path, row_group_size=700)
    assert len(fragments(locate(dataset(path)), 0, fragment_bytes)) == (4 if fragment_bytes == 1 else 1)
    assert read(path, fragment_bytes) == [(n + 1, {"q": f"text {n}"}) for n in range(2500)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.jsonl.gz", b"not gzip"), ("x.jsonl.gz", gzip.compress(b"{}\n" * 99)[:-9]), ("x.csv", b"a\n\xff\n")],
)
def test_an_unreadable_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        read(path)


def test_a_parquet_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read"):
        locate(dataset(path))


def test_a_file_that_vanished_is_named(tmp_path):
    fragment = Fragment(0, str(tmp_path / "gone.jsonl"), "jsonl", (), 0, None)
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        list(Reader(fragment).rows())
