"""A row of a source becomes an example: texts cleaned and checked, scores brought to [0, 1], content hashed."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from boom_ray.config import DatasetConfig
from boom_ray.corpus.columns import Roles, find_roles
from boom_ray.corpus.readers import BadRow, Row
from boom_ray.hashing import text_id

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]+")  # all but tab and newlines; lone surrogates
BELOW = "below positive_from"
TRIMMED = "negatives over max_negatives"


@dataclass
class Example:
    """One example before sealing; labelled ones have no positives yet."""

    query: str
    positives: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    score: float | None = None
    label: str | None = None
    instruction: str | None = None
    positive_scores: list[float] | None = None
    negative_scores: list[float] | None = None

    @property
    def is_taught(self) -> bool:
        """Whether a teacher has scored its positives and its negatives."""
        return self.positive_scores is not None and self.negative_scores is not None

    def id(self) -> bytes:
        """16-byte hash of the whole content; equal examples, wherever they stand, have equal ids."""
        rest = [self.score, self.label, self.instruction, self.positive_scores, self.negative_scores]
        counts = f"{len(self.positives)},{len(self.negatives)}"
        return text_id(counts, self.query, *self.positives, *self.negatives, json.dumps(rest))


def to_example(row: Row, dataset: DatasetConfig, max_negatives: int, counts: Counter[str]) -> Example | None:
    """Turn one row into an example.

    Args:
        row: column name to value.
        dataset: its configuration.
        max_negatives: the first so many negatives are kept.
        counts: what was left out is counted here: `BELOW`, `TRIMMED` and negatives by reason.

    Returns:
        The example, or None for a scored pair below ``positive_from``, unless the dataset's loss is graded.

    Raises:
        BadRow: the row has not what it takes.
    """
    roles = find_roles(dataset, tuple(row))
    query = clean(_text(row[roles.query], roles.query))
    if not query:
        raise BadRow("empty query", f"the column {roles.query} is empty")
    instruction = _instruction(row, roles)
    if roles.label is not None:
        return Example(query, label=_label(row, roles), instruction=instruction)
    example = Example(query, _positives(row, roles), instruction=instruction, score=_score(row, roles, dataset))
    example.positive_scores = _scores(row, roles.positive_scores, len(example.positives))
    _add_negatives(example, row, roles, max_negatives, counts)
    if example.score is not None and example.score < dataset.positive_from and not dataset.loss.is_graded:
        counts[BELOW] += 1
        return None
    return example


def clean(text: str) -> str:
    """The text without white space at its ends and with every run of control characters as one space."""
    text = text.strip()
    return CONTROLS.sub(" ", text).strip() if CONTROLS.search(text) else text


def _text(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise BadRow("wrong type", f"the column {column} is {type(value).__name__}, not a text")


def _texts(value: Any, column: str) -> list[str]:
    """A text or a list of them, as a list."""
    if isinstance(value, list):
        return [clean(_text(item, column)) for item in value]
    return [clean(_text(value, column))]


def _positives(row: Row, roles: Roles) -> list[str]:
    assert roles.positive is not None
    positives = _texts(row[roles.positive], roles.positive)
    if not positives or not all(positives):
        raise BadRow("empty positive", f"the column {roles.positive} has no text or an empty one")
    return positives


def _instruction(row: Row, roles: Roles) -> str | None:
    if roles.instruction is None:
        return None
    return clean(_text(row[roles.instruction], roles.instruction)) or None


def _label(row: Row, roles: Roles) -> str:
    """The label's name if it has one, else the label as text."""
    assert roles.label is not None
    value = row[roles.label]
    if value is None or isinstance(value, float | list | dict):
        kind = "empty" if value is None else type(value).__name__
        raise BadRow("wrong type", f"the label in column {roles.label} is {kind}, not an integer or a text")
    name = row[roles.label_text] if roles.label_text else None
    label = clean(name if isinstance(name, str) and name.strip() else str(value))
    if not label:
        raise BadRow("empty label", f"the column {roles.label} is empty")
    return label


def _score(row: Row, roles: Roles, dataset: DatasetConfig) -> float | None:
    if roles.score is None:
        return None
    value = _number(row[roles.score], roles.score)
    low, high = dataset.score_range
    if not low <= value <= high:
        raise BadRow(
            "score outside its range",
            f"the score {value:g} in column {roles.score} is outside score_range [{low:g}, {high:g}]",
        )
    return (value - low) / (high - low)


def _number(value: Any, column: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRow("wrong type", f"the column {column} is {str(value)[:40]!r}, not a finite number")
    return number


def _scores(row: Row, column: str | None, count: int) -> list[float] | None:
    """A teacher's scores; as many as texts."""
    value = row[column] if column else None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != count:
        raise BadRow("wrong number of scores", f"the column {column} is not a list of {count} numbers, one per text")
    return [_number(item, str(column)) for item in value]


def _add_negatives(example: Example, row: Row, roles: Roles, limit: int, counts: Counter[str]) -> None:
    """Keep the first ``limit`` sound negatives with their scores; count all others by reason."""
    texts = [text for name in roles.negatives if row[name] is not None for text in _texts(row[name], name)]
    scores = _scores(row, roles.negative_scores, len(texts))
    kept: dict[str, int] = {}
    for number, text in enumerate(texts):
        reason = _fault(text, example, kept)
        if reason is None and len(kept) >= limit:
            reason = TRIMMED
        if reason is None:
            kept[text] = number
        else:
            counts[reason] += 1
    example.negatives = list(kept)
    example.negative_scores = [scores[number] for number in kept.values()] if scores else None


def _fault(text: str, example: Example, kept: dict[str, int]) -> str | None:
    if not text:
        return "negatives empty"
    if text == example.query:
        return "negatives equal to the query"
    if text in example.positives:
        return "negatives equal to a positive"
    return "negatives repeated" if text in kept else None
