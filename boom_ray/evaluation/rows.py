"""Reading the files of a task folder; every fault is reported with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from boom_ray.errors import EvaluationError


@dataclass(frozen=True)
class Row:
    """One JSON object and where it stands.

    Attributes:
        path: file.
        line: number of the line, from 1.
        values: the object.
    """

    path: Path
    line: int
    values: dict[str, Any]

    def fail(self, message: str) -> NoReturn:
        """Raise an `EvaluationError` that names file and line."""
        raise EvaluationError(f"{self.path}:{self.line}: {message}")

    def get(self, *names: str) -> Any:
        """The first of the named columns that is there and not null."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        self.fail(f"there is no column {' or '.join(names)}; the columns are {', '.join(self.values) or 'none'}.")

    def text(self, *names: str) -> str:
        """A column that must hold text that is not blank."""
        value = self.get(*names)
        if not isinstance(value, str):
            self.fail(f"{names[0]} must be text, not {json.dumps(value)[:60]}.")
        if not value.strip():
            self.fail(f"{names[0]} is empty.")
        return value

    def texts(self, name: str) -> list[str]:
        """A column that must hold a list with at least one text."""
        value = self.get(name)
        if not isinstance(value, list) or not value:
            self.fail(f"{name} must be a list with at least one text.")
        for item in value:
            if not isinstance(item, str) or not item.strip():
                self.fail(f"{name} holds {json.dumps(item)[:60]}, which is not a text or empty.")
        return value

    def identifier(self) -> str:
        """The ``_id`` of a passage or query, text or number."""
        value = self.get("_id", "id")
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            self.fail(f"_id must be text or a whole number, not {json.dumps(value)[:60]}.")
        return str(value)

    def number(self, name: str, lowest: float, highest: float) -> float:
        """A column that must hold a number within the range."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{name} must be a number, not {json.dumps(value)[:60]}.")
        if not lowest <= value <= highest:
            self.fail(f"{name} {value:g} is outside [{lowest:g}, {highest:g}]; correct it or set score_range.")
        return float(value)


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file; blank lines are skipped.

    Raises:
        EvaluationError: no such file, not UTF-8, a malformed line, or no row at all.
    """
    rows = [_row(path, number, line) for number, line in _lines(path) if line.strip()]
    if not rows:
        raise EvaluationError(f"{path} holds no rows.")
    return rows


def read_qrels(path: Path) -> Iterator[tuple[int, str, str, int]]:
    """Line number, query id, passage id and relevance of every line of a BEIR qrels file (tab-separated).

    Raises:
        EvaluationError: no such file, a line without three fields, or a relevance that is not a whole number.
    """
    for number, line in _lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if (number == 1 and not _is_whole(fields[-1])) or not line.strip():
            continue
        if len(fields) != 3 or not _is_whole(fields[2]):
            raise EvaluationError(
                f"{path}:{number}: a line must be query-id, corpus-id and a whole number as score, separated by tabs."
            )
        yield number, fields[0], fields[1], int(float(fields[2]))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line
    except FileNotFoundError as error:
        present = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else "none"
        raise EvaluationError(f"{path} does not exist; files beside it: {present}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}:{number + 1}: cannot be read: {error}.") from error


def _row(path: Path, number: int, line: str) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise EvaluationError(f"{path}:{number}: not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise EvaluationError(f"{path}:{number}: a line must be one JSON object, like {{...}}.")
    return Row(path, number, values)


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False
