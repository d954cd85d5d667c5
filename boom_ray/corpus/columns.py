"""Which columns of a row play which role: names given in the configuration, else the usual ones."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from boom_ray.config import ColumnsConfig, DatasetConfig
from boom_ray.config.corpus import LABEL_TASKS
from boom_ray.corpus.readers import BadRow

QUERY = ("query", "anchor", "sentence1", "question")
POSITIVE = ("pos", "positive", "sentence2", "answer")
SCORE = ("score", "label")
TEACHER = ("pos_scores", "neg_scores")
NEGATIVE = re.compile(r"neg|negatives?(_\d+)?")
SCORED_TASKS = frozenset({"sts", "pair"})
NO_SCORE = "missing score column"


@dataclass(frozen=True)
class Roles:
    """Column names by role; None or empty where a row has no such column. Labelled rows have ``label``."""

    query: str
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    score: str | None = None
    label: str | None = None
    label_text: str | None = None
    instruction: str | None = None
    positive_scores: str | None = None
    negative_scores: str | None = None


@functools.lru_cache(maxsize=1024)
def find_roles(dataset: DatasetConfig, present: tuple[str, ...]) -> Roles:
    """Roles of the columns of a row.

    A row with a text and a label is a labelled example if the task type is classification or clustering, or if the
    configuration names its ``text`` column; every other row is a query with positives.

    Args:
        dataset: its configuration.
        present: the row's column names.

    Raises:
        BadRow: a column that is needed, also by the dataset's loss, or named in the configuration is missing.
    """
    roles = _roles(dataset, present)
    if dataset.loss.is_graded and roles.score is None:
        raise BadRow(NO_SCORE, f"{score_needed(dataset)}; present are {', '.join(present)}")
    return roles


def score_needed(dataset: DatasetConfig) -> str:
    """What a dataset misses whose graded loss finds no score column."""
    where = f"corpus.datasets.{dataset.name}"
    return (
        f"a score column ({', '.join(SCORE)}) is missing, which {where}.loss.kind={dataset.loss.kind} needs: name it "
        f"in {where}.columns.score, or choose loss.kind=infonce"
    )


def _roles(dataset: DatasetConfig, present: tuple[str, ...]) -> Roles:
    columns = dataset.columns
    named = _named(columns)
    absent = [f"{role}={name}" for role, name in named if name not in present]
    if absent:
        raise _missing(f"the column {absent[0]} that corpus.datasets.{dataset.name}.columns names", present)
    first = functools.partial(_first, present)
    instruction = first(columns.instruction, ("prompt", "instruction"))
    query = first(columns.query, QUERY)
    if columns.text or (dataset.task_type in LABEL_TASKS and query is None):
        return _labelled(columns, present, instruction)
    if query is None:
        raise _missing(f"a query column ({', '.join(QUERY)})", present)
    positive = first(columns.positive, POSITIVE)
    if positive is None:
        raise _missing(f"a positive column ({', '.join(POSITIVE)})", present)
    return Roles(
        query=query,
        positive=positive,
        negatives=columns.negative or _negatives(present),
        score=first(columns.score, SCORE if dataset.task_type in SCORED_TASKS or dataset.loss.is_graded else ()),
        instruction=instruction,
        positive_scores=first(None, TEACHER[:1]),
        negative_scores=first(None, TEACHER[1:]),
    )


def _labelled(columns: ColumnsConfig, present: tuple[str, ...], instruction: str | None) -> Roles:
    text = _first(present, columns.text, ("text", "sentence"))
    label = _first(present, columns.label, ("label", "labels"))
    if text is None or label is None:
        role = "text" if text is None else "label"
        raise _missing(f"a {role} column (or a query and a positive column)", present)
    name = _first(present, columns.label_text, (f"{label}_text", "label_text"))
    return Roles(query=text, label=label, label_text=name, instruction=instruction)


def _named(columns: ColumnsConfig) -> list[tuple[str, str]]:
    roles = ("query", "positive", "score", "text", "label", "label_text", "instruction")
    single = [(role, getattr(columns, role)) for role in roles if getattr(columns, role)]
    return [*single, *(("negative", name) for name in columns.negative)]


def _first(present: tuple[str, ...], named: str | None, usual: tuple[str, ...]) -> str | None:
    return named or next((name for name in usual if name in present), None)


def _negatives(present: tuple[str, ...]) -> tuple[str, ...]:
    """Usual negative columns, numbered ones in the order of their numbers."""
    found = [name for name in present if NEGATIVE.fullmatch(name)]
    return tuple(sorted(found, key=lambda name: (len(name), name)))


def _missing(what: str, present: tuple[str, ...]) -> BadRow:
    return BadRow("missing column", f"{what} is missing; present are {', '.join(present) or 'none'}")
