"""Rows of a fragment, each with its place, so that errors can name file and line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from boom_ray.corpus import beir, hub
from boom_ray.corpus.sources import Fragment, open_fs, unreadable

Row = dict[str, Any]
Numbered = Iterator[tuple[int, "Row | BadRow"]]


class BadRow(ValueError):  # noqa: N818  (it is set aside as often as raised)
    """A row that cannot become an example.

    Attributes:
        reason: what all such rows share; a few words, for counting.
        detail: what is wrong with this one; a clause.
        raw: the row as it stands in the source, if it could not be read into columns.
    """

    def __init__(self, reason: str, detail: str, raw: str = "") -> None:
        super().__init__(reason, detail, raw)
        self.reason, self.detail, self.raw = reason, detail, raw


@dataclass
class Reader:
    """Reads one fragment; `place` says where a row stands in its file."""

    fragment: Fragment
    _lines_before: int | None = None

    def rows(self) -> Numbered:
        """Pairs of a row's number inside the fragment and the row, or why it is none.

        Raises:
            DataError: the file cannot be read.
        """
        fragment = self.fragment
        readers = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
        try:
            if fragment.kind == "huggingface":
                assert fragment.end is not None
                yield from hub.read(fragment.path, fragment.extra[0], fragment.extra[1], fragment.start, fragment.end)
            elif fragment.kind == "beir":
                yield from _read_beir(fragment)
            else:
                yield from readers[fragment.kind](fragment)
        except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError, pa.ArrowException) as error:
            raise unreadable(fragment.path, error) from error

    def place(self, number: int) -> tuple[str, int]:
        """File and line (row of Parquet and Hugging Face datasets, from 1) of the fragment's row ``number``."""
        fragment = self.fragment
        if fragment.kind == "beir":
            return f"{fragment.path}/{fragment.extra[0]}", number
        if fragment.kind != "jsonl" or fragment.start == 0:
            return fragment.path, number
        if self._lines_before is None:  # only rows that are bad need it, so it is counted late
            self._lines_before = _count_lines(fragment)
        return fragment.path, self._lines_before + number


def _read_jsonl(fragment: Fragment) -> Numbered:
    fs, path = open_fs(fragment.path)
    with fs.open(path, "rb") as raw:
        stream = _plain(raw, path)
        position = _first_line_start(stream, fragment.start)
        for number, line in enumerate(stream, 1):
            if fragment.end is not None and position >= fragment.end:
                return
            position += len(line)
            if line.strip():
                yield number, _parse(line)


def _plain(raw: Any, path: str) -> Any:
    """The stream, decompressed if the name says so; closed with ``raw``."""
    return gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw


def _first_line_start(stream: Any, start: int) -> int:
    """Move to the first line that begins at or after ``start``; returns its position."""
    if start == 0:
        return 0
    stream.seek(start - 1)
    return start - 1 + len(stream.readline())


def _count_lines(fragment: Fragment) -> int:
    """Lines that begin before the fragment's first one."""
    fs, path = open_fs(fragment.path)
    with fs.open(path, "rb") as stream:
        left = _first_line_start(stream, fragment.start)
        stream.seek(0)
        count = 0
        while left > 0 and (piece := stream.read(min(left, 4 << 20))):
            count += piece.count(b"\n")
            left -= len(piece)
    return count


def _parse(line: bytes) -> Row | BadRow:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        return BadRow("not UTF-8", f"the line is not UTF-8 ({error.reason})", repr(line))
    except (ValueError, RecursionError) as error:
        return BadRow("malformed JSON", f"the line is not JSON ({error})", line.decode("utf-8", "replace").strip())
    if not isinstance(row, dict):
        return BadRow("not a JSON object", f"the line is a JSON {type(row).__name__}, not an object", line.decode())
    return row


def _read_csv(fragment: Fragment) -> Numbered:
    fs, path = open_fs(fragment.path)
    with fs.open(path, "rb") as raw:
        text = io.TextIOWrapper(_plain(raw, path), encoding="utf-8-sig", newline="")
        lines = csv.DictReader(text, delimiter="\t" if ".tsv" in path.rsplit("/", 1)[-1] else ",")
        for row in lines:
            if None in row or None in row.values():
                yield lines.line_num, BadRow("wrong number of fields", "the line has not as many fields as the header")
            else:
                yield lines.line_num, row


def _read_parquet(fragment: Fragment) -> Numbered:
    fs, path = open_fs(fragment.path)
    with fs.open(path, "rb") as stream:
        file = pq.ParquetFile(stream)
        number = sum(file.metadata.row_group(group).num_rows for group in range(fragment.start))
        groups = list(range(fragment.start, fragment.end or file.metadata.num_row_groups))
        for batch in file.iter_batches(batch_size=1000, row_groups=groups):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _read_beir(fragment: Fragment) -> Numbered:
    assert fragment.end is not None
    fs, path = open_fs(fragment.path)
    for number, row in beir.read(fs, path, fragment.extra[0], fragment.start, fragment.end):
        yield number, BadRow("unknown id", row) if isinstance(row, str) else row
