"""Texts of evaluation tasks compared with training examples: plain functions over texts, part by part.

Two texts are equal if case and white space are all that tells them apart, as at ingest; nearly equal is what
`boom_ray.near_duplicates` says. What parts find is put together by `Findings.join`, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from boom_ray.config import NearDuplicatesConfig
from boom_ray.evaluation.folders import HeldOut
from boom_ray.hashing import U64, normalized_text_key
from boom_ray.near_duplicates import I64, NearIndex

PAIRS = 10  # examples per task


class Pair(NamedTuple):
    """A training text that is, exactly or nearly, a text of a task; the closest one compares as the greatest."""

    similarity: float
    dataset: str
    text: str


class Item(NamedTuple):
    """One text of a task, by the numbers of its forms."""

    role: str
    forms: tuple[int, ...]


@dataclass(frozen=True)
class HeldTexts:
    """The texts of all tasks, each once; the number of a text is its place.

    Attributes:
        keys: (N,) `normalized_text_key` of each, ascending; so the order is that of a hash.
        index: finds near-duplicates of them.
        numbers: task to the numbers of its texts, ascending.
    """

    keys: U64
    index: NearIndex
    numbers: dict[str, I64]

    @classmethod
    def of(
        cls, texts: Mapping[str, Sequence[HeldOut]], settings: NearDuplicatesConfig
    ) -> tuple[HeldTexts, dict[str, list[Item]]]:
        """The texts to look for, and every task's distinct texts in the order in which they came."""
        written: dict[int, str] = {}
        for form in (form for own in texts.values() for one in own for form in one.forms):
            key = normalized_text_key(form)
            written[key] = min(form, written.get(key, form))  # the order of tasks must not decide
        keys = sorted(written)
        number = {key: place for place, key in enumerate(keys)}
        items = {
            task: list(dict.fromkeys(Item(one.role, _numbers(one.forms, number)) for one in own))
            for task, own in texts.items()
        }
        numbers = {task: np.unique([form for one in own for form in one.forms]) for task, own in items.items()}
        index = NearIndex.of([written[key] for key in keys], settings)
        return cls(np.array(keys, np.uint64), index, numbers), items


def _numbers(forms: Iterable[str], number: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number[normalized_text_key(form)] for form in forms))


@dataclass
class Findings:
    """Which texts of tasks were found among training texts.

    Attributes:
        exact: dataset to the numbers of the texts that occur in it.
        near: dataset to the numbers of the texts that nearly occur in it.
        pairs: for each of the two, text to its closest training text; complete for the `PAIRS` lowest of every task.
    """

    exact: dict[str, set[int]] = field(default_factory=dict)
    near: dict[str, set[int]] = field(default_factory=dict)
    pairs: tuple[dict[int, Pair], dict[int, Pair]] = field(default_factory=lambda: ({}, {}))

    def join(self, other: Findings) -> None:
        """Add what another part found."""
        for mine, found in ((self.exact, other.exact), (self.near, other.near)):
            for dataset, numbers in found.items():
                mine.setdefault(dataset, set()).update(numbers)
        for own, pairs in zip(self.pairs, other.pairs, strict=True):
            for number, pair in pairs.items():
                own[number] = max(own.get(number, pair), pair)

    def trim(self, held: HeldTexts) -> None:
        """Forget pairs that cannot be among the `PAIRS` of any task."""
        for pairs, found in zip(self.pairs, (self.exact, self.near), strict=True):
            known = np.array(sorted(set().union(*found.values())), np.int64)
            wanted = {n for own in held.numbers.values() for n in np.intersect1d(own, known)[:PAIRS].tolist()}
            for number in pairs.keys() - wanted:
                del pairs[number]


def compare(held: HeldTexts, dataset: str, texts: Sequence[str]) -> Findings:
    """Look for the texts of all tasks among training texts of one dataset."""
    asked = list(dict.fromkeys(texts))
    keys = np.fromiter(map(normalized_text_key, asked), np.uint64, len(asked))
    place = np.searchsorted(held.keys, keys)
    place[place == len(held.keys)] = 0
    same = held.keys[place] == keys if len(held.keys) else np.zeros(len(asked), np.bool_)
    found = Findings()
    exact, near = found.pairs
    for at in np.flatnonzero(same).tolist():
        number, pair = int(place[at]), Pair(1.0, dataset, asked[at])
        exact[number] = max(exact.get(number, pair), pair)
    matches = held.index.find(asked)
    columns = (matches.asked.tolist(), matches.held.tolist(), matches.similarity.tolist())
    for at, number, similarity in zip(*columns, strict=True):
        if not (same[at] and place[at] == number):
            pair = Pair(similarity, dataset, asked[at])
            near[number] = max(near.get(number, pair), pair)
    found.exact, found.near = {dataset: set(exact)}, {dataset: set(near)}
    found.trim(held)
    return found
