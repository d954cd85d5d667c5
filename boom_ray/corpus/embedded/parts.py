"""Who may be in which set: rows divided by function, and rows of functions that no set has yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from boom_ray.corpus.embedded.choose import NearDuplicates, collapse, shares, shuffled, sketch
from boom_ray.corpus.embedded.forms import Row, label_name, pair_name
from boom_ray.corpus.embedded.parse import package_of
from boom_ray.corpus.embedded.rows import Labelled, Pair

HELD_OUT = 0.25  # share of the functions of the packages trained on that only tests see
NO_TEXT = frozenset({"_id", "query-id", "corpus-id", "label_text"})  # fields of rows
T = TypeVar("T", bound=Pair | Labelled)


@dataclass(frozen=True)
class Parts(Generic[T]):
    """Rows of one kind, in hashed order.

    Attributes:
        train: of functions that may be trained on.
        held_out: of other functions of the same packages.
        outside: of the packages never trained on.
    """

    train: list[T]
    held_out: list[T]
    outside: list[T]

    def __iter__(self) -> Iterator[T]:
        yield from (*self.train, *self.held_out, *self.outside)


def split(inside: Sequence[T], outside: Sequence[T], seed: int) -> Parts[T]:
    """Rows in hashed order without near-duplicates, those of ``inside`` first, divided by function."""
    ordered = [*shuffled(inside, _name, seed, "order"), *shuffled(outside, _name, seed, "order")]
    packages = {package_of(row.owner) for row in inside}
    kept = collapse(ordered, _texts)
    places = shares([row.owner for row in kept], seed, "held-out")
    parts: Parts[T] = Parts([], [], [])
    for row, place in zip(kept, places, strict=True):
        if package_of(row.owner) not in packages:
            parts.outside.append(row)
        else:
            (parts.held_out if place < HELD_OUT else parts.train).append(row)
    return parts


class Unused:
    """Knows the functions and texts that some sets have, and picks rows that have nothing in common with them."""

    def __init__(self, used: Iterable[Row], known: Iterable[Pair | Labelled]) -> None:
        """Take the rows of the sets, and all rows that they were made of."""
        texts = {text for row in used for text in _texts_of(row)}
        self._owners = {row.owner for row in known if texts.intersection(_texts(row))}
        sketches = [sketch(text) for text in sorted(texts)]
        self._near = NearDuplicates(Counter(mark for marks in sketches for mark in marks))
        for marks in sketches:
            self._near.add(marks)

    def of(self, rows: Iterable[T]) -> list[T]:
        """The rows of other functions, whose texts are no near-duplicate of any text of the sets."""
        return [
            row
            for row in rows
            if row.owner not in self._owners and not any(self._near.has(sketch(text)) for text in _texts(row))
        ]


def _name(row: Pair | Labelled) -> str:
    return pair_name(row) if isinstance(row, Pair) else label_name(row)


def _texts(row: Pair | Labelled) -> tuple[str, ...]:
    return (row.query, row.positive) if isinstance(row, Pair) else (row.text,)


def _texts_of(row: Row) -> Iterator[str]:
    for field, value in row.items():
        if field not in NO_TEXT:
            yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))
