"""Choices by keyed hash: the same everywhere the same texts are, whatever their order (DESIGN.md section 3)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from boom_ray.hashing import U64, mix64, stream_key, text_key, unit_interval

T = TypeVar("T")
_WORD = re.compile(r"[a-z]+")
SKETCH = 16  # shingle hashes kept per text
SHARED = 9  # texts with as many in common are near-duplicates: Jaccard similarity of about 0.4 and more


def ranks(ids: Sequence[str], seed: int, stream: str) -> U64:
    """Keyed 64-bit hash of every id.

    Args:
        ids: n texts.
        seed: seed of the embedded text.
        stream: what is chosen, so that two choices are independent.

    Returns:
        Array (n,), uint64.
    """
    keys = np.fromiter((text_key(text) for text in ids), dtype=np.uint64, count=len(ids))
    return mix64(keys, stream_key(seed, "embedded", stream))


def shares(ids: Sequence[str], seed: int, stream: str) -> np.ndarray:
    """Keyed number in [0, 1) of every id: array (n,), float64."""
    return unit_interval(ranks(ids, seed, stream))


def shuffled(items: Iterable[T], name: Callable[[T], str], seed: int, stream: str) -> list[T]:
    """Items in the order of the keyed hashes of their names; equal names are ordered by the names' first appearance."""
    listed = sorted(items, key=name)
    if not listed:
        return []
    order = np.argsort(ranks([name(item) for item in listed], seed, stream), kind="stable")
    return [listed[index] for index in order]


def sketch(text: str) -> tuple[int, ...]:
    """The smallest hashes of a text's word bigrams, at most SKETCH of them; case, digits and punctuation do not count.

    Source: Broder, "On the resemblance and containment of documents", 1997 (bottom-k sketches).
    """
    words = _WORD.findall(text.lower())
    if len(words) < 2:
        return (text_key(" ".join(words)),)
    hashes = {text_key(f"{first} {second}") for first, second in pairwise(words)}
    return tuple(sorted(hashes)[:SKETCH])


class NearDuplicates:
    """Sketches seen so far; says whether a new one is nearly the same as one of them.

    Two sketches that share the needed part share one of the rarest marks of each, so only those are indexed and looked
    up: common word pairs would make every text a candidate.

    Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.
    """

    def __init__(self, frequency: Mapping[int, int]) -> None:
        """Take the number of texts that hold each mark; any numbers are right, the true ones are fast."""
        self._frequency = frequency
        self._places: dict[int, list[int]] = {}
        self._seen: list[frozenset[int]] = []

    def has(self, marks: Sequence[int]) -> bool:
        """Whether a sketch is nearly a remembered one."""
        new = frozenset(marks)
        candidates = {index for mark in self._rarest(marks) for index in self._places.get(mark, ())}
        return any(
            len(new & old) * SKETCH >= SHARED * max(len(new), len(old))
            for old in (self._seen[index] for index in candidates)
        )

    def add(self, marks: Sequence[int]) -> bool:
        """Remember a sketch unless it is nearly a remembered one; True when it was new."""
        if self.has(marks):
            return False
        for mark in self._rarest(marks):
            self._places.setdefault(mark, []).append(len(self._seen))
        self._seen.append(frozenset(marks))
        return True

    def _rarest(self, marks: Sequence[int]) -> list[int]:
        needed = -(-len(marks) * SHARED // SKETCH)
        return sorted(marks, key=lambda mark: (self._frequency[mark], mark))[: len(marks) - needed + 1]


def collapse(items: Sequence[T], texts: Callable[[T], Sequence[str]]) -> list[T]:
    """Keep the first of every group of near-duplicates; an item goes when any of its texts is nearly an earlier one.

    Args:
        items: in the order of preference.
        texts: the texts of an item, as many for each; compared with the texts of the same place.
    """
    new = [True] * len(items)
    for column in zip(*(texts(item) for item in items), strict=True):
        sketches = [sketch(text) for text in column]
        known = NearDuplicates(Counter(mark for marks in sketches for mark in marks))
        for index, marks in enumerate(sketches):
            new[index] &= known.add(marks)
    return [item for item, kept in zip(items, new, strict=True) if kept]


def spread(items: Iterable[T], group: Callable[[T], Hashable], most: int) -> list[T]:
    """At most ``most`` items of each group, the first ones, in the order given."""
    counts: Counter[Hashable] = Counter()
    kept: list[T] = []
    for item in items:
        counts[group(item)] += 1
        if counts[group(item)] <= most:
            kept.append(item)
    return kept
