"""Which positive and negatives of every example take part in a step, for all examples of the step at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boom_ray.hashing import U64, mix64

I64 = npt.NDArray[np.int64]
BOOL = npt.NDArray[np.bool_]
U64_MAX = np.uint64(2**64 - 1)
LOW = np.uint64(2**32 - 1)
HALF = np.uint64(32)


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end.

    Attributes:
        values: (sum of lengths,) all values.
        counts: (B,) length of each list.
    """

    values: npt.NDArray[Any]
    counts: I64

    @staticmethod
    def of(lists: Sequence[npt.NDArray[Any]]) -> Ragged:
        """At least one list."""
        return Ragged(np.concatenate(lists), np.fromiter(map(len, lists), np.int64, len(lists)))

    @property
    def starts(self) -> I64:
        """(B,) place of each list's first value."""
        ends: I64 = np.cumsum(self.counts)
        return ends - self.counts

    def where(self, kept: BOOL) -> Ragged:
        """The same lists with only those values for which (sum of lengths,) ``kept`` is true."""
        owners = np.repeat(np.arange(len(self.counts)), self.counts)
        return Ragged(self.values[kept], np.bincount(owners[kept], minlength=len(self.counts)))

    def padded(self) -> npt.NDArray[Any]:
        """(B, longest) lists of at least one value, shorter ones padded with their first."""
        places = np.arange(self.counts.max())
        return self.values[self.starts[:, None] + np.where(places < self.counts[:, None], places, 0)]


@dataclass(frozen=True)
class Choice:
    """The chosen passages; numbers into each example's lists.

    Attributes:
        positive: (B,) number of the positive.
        negatives: (B, K) numbers of the negatives, ascending; K is what the step's richest example has.
        present: (B, 1+K) bool; False where an example has fewer negatives.
    """

    positive: I64
    negatives: I64
    present: BOOL

    def of(self, positives: Ragged, negatives: Ragged) -> npt.NDArray[Any]:
        """(B, 1+K) what the examples' lists hold for the chosen passages, 0 for absent negatives."""
        found = np.zeros(self.present.shape, positives.values.dtype)
        found[:, 0] = positives.values[positives.starts + self.positive]
        there = self.present[:, 1:]
        found[:, 1:][there] = negatives.values[(negatives.starts[:, None] + self.negatives)[there]]
        return found


def choose(hashes: U64, positives: I64, negatives: I64, limit: int) -> Choice:
    """One positive and at most ``limit`` negatives of every example by keyed hash, each with the same chance.

    Args:
        hashes: (B,) one hash per example and pass over the data.
        positives: (B,) how many positives each has, at least 1.
        negatives: (B,) how many negatives each has.
        limit: most negatives.
    """
    many = negatives > limit
    width = min(limit, int(negatives.max(initial=0)))
    numbers = np.tile(np.arange(width), (len(hashes), 1))
    if many.any():
        places = np.arange(negatives.max(), dtype=np.uint64)
        order = mix64(places ^ hashes[many, None], 0)  # the keyed hash of each place under the example's own key
        order[places >= negatives[many, None].astype(np.uint64)] = U64_MAX
        numbers[many] = np.sort(np.argsort(order, axis=1, kind="stable")[:, :limit], axis=1)
    present = np.concatenate([np.ones((len(hashes), 1), np.bool_), np.arange(width) < negatives[:, None]], axis=1)
    return Choice(_scaled(hashes, positives), numbers, present)


def _scaled(hashes: U64, counts: I64) -> I64:
    """(B,) ⌊hash · count / 2^64⌋ in halves of 32 bits; counts are below 2^32."""
    number = counts.astype(np.uint64)
    high, low = hashes >> HALF, hashes & LOW
    return ((high * number + (low * number >> HALF)) >> HALF).astype(np.int64)
