"""The k largest elements of every vector of a tensor, without sorting and without holding the tensor.

Magnitudes are ranked in float32: |v| is rounded to float32, whose bit pattern, read as an integer, grows with it. The
upper 15 bits of the pattern (sign dropped: 8 of exponent, 7 of mantissa) are a bucket. A first pass counts elements per
bucket (`Histograms`, which can be kept); that tells in which bucket the k-th largest lies. A second pass counts the
lower 16 bits of what lies in that bucket, which gives the k-th largest itself. Counts are integers, so the result does
not depend on strips or threads.

Differences of 16-bit weights take few values, and many elements are exactly as large as the k-th largest. Of those a
share is picked by random numbers of their own (`boom_ray.merging.tensors.masks.numbers_of`), so that no row is
favoured. Where k is small (`EXACT`) one more pass looks at these numbers and picks the smallest, so that exactly k
elements are kept; elsewhere, and where one k is for the whole model, k are kept in expectation, with a standard
deviation below sqrt(k): another pass over a large tensor would not be worth it.

Magnitudes below 2^-133 (1e-40) count as zero, and zeros are never trimmed: dropped or kept, they add nothing.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.merging.tensors.masks import I64, numbers_of
from boom_ray.merging.tensors.vectors import Strip, Vectors

BUCKETS = 1 << 15
"""Buckets of a histogram: the upper 15 bits of a magnitude."""
FINE = 1 << 16
"""Magnitudes in one bucket: the lower 16 bits."""
EXACT = 1 << 12
"""Elements to keep, at most, for the number that is kept to be exact; beyond, it is off by 1.6 % or less (1 sigma)."""
Measure = Callable[[Strip], torch.Tensor]
"""Strip of n elements -> (R, n) numbers whose magnitudes are ranked; must leave the strip as it is."""


def values(strip: Strip) -> torch.Tensor:
    """(M, n) the vectors themselves, the usual measure."""
    return strip.rows


@dataclass(frozen=True)
class Cut:
    """What is kept of a vector: all that is larger than the threshold, and a share of what equals it.

    Attributes:
        threshold: a float32 magnitude.
        share: of the elements of exactly this magnitude, those whose random number is below it are kept; 1 keeps all
            of them, and none is drawn.
    """

    threshold: float
    share: float


EVERYTHING = Cut(0.0, 1.0)
NOTHING = Cut(math.inf, 0.0)


@dataclass(frozen=True)
class Histograms:
    """How many elements of each vector have which magnitude.

    Attributes:
        counts: (R, 32768) elements per upper 15 bits of the float32 magnitude; int64.
    """

    counts: I64

    def __add__(self, other: Histograms) -> Histograms:
        """Counts of two tensors together."""
        return Histograms(self.counts + other.counts)

    @property
    def nonzero(self) -> I64:
        """(R,) elements that are not zero."""
        result: I64 = self.counts[:, 1:].sum(axis=1)
        return result

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays for a file: the buckets in use, in the narrowest type that holds the counts.

        Returns:
            ``zeros`` (R,) elements of magnitude zero, ``first`` (1,) the first bucket in use, ``counts`` (R, used).
        """
        rest = self.counts[:, 1:]
        used = np.flatnonzero(rest.any(axis=0))
        first, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        part = rest[:, first:stop]
        narrow = np.min_scalar_type(int(part.max(initial=0)))
        return {"zeros": self.counts[:, 0].copy(), "first": np.array([first + 1]), "counts": part.astype(narrow)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Histograms:
        """What `to_arrays` was called on."""
        part = arrays["counts"]
        counts = np.zeros((len(part), BUCKETS), dtype=np.int64)
        counts[:, 0] = arrays["zeros"]
        first = int(arrays["first"][0])
        counts[:, first : first + part.shape[1]] = part
        return Histograms(counts)


class PerThread:
    """Counts that several threads add to, each to an array of its own; integers add up to the same in any order."""

    def __init__(self, rows: int, size: int) -> None:
        """All counts are zero."""
        self._shape = (rows, size)
        self._local = threading.local()
        self._parts: list[I64] = []

    def mine(self) -> I64:
        """(rows, size) the calling thread's counts, to be added to."""
        held: I64 | None = getattr(self._local, "counts", None)
        if held is None:
            held = np.zeros(self._shape, dtype=np.int64)
            self._local.counts = held
            self._parts.append(held)
        return held

    def total(self) -> I64:
        """(rows, size) the sum over threads."""
        if len(self._parts) == 1:
            return self._parts[0]
        return np.sum(self._parts, axis=0, dtype=np.int64) if self._parts else np.zeros(self._shape, dtype=np.int64)


class Tally:
    """A histogram in the making; `add` may be called from several threads, within a pass made for other figures too.

    Args:
        rows: number of vectors.
    """

    def __init__(self, rows: int) -> None:
        """Nothing is counted yet."""
        self._counts = PerThread(rows, BUCKETS)

    def add(self, block: torch.Tensor) -> None:
        """Count (R, n) elements; they stay as they are."""
        mine = self._counts.mine()
        for counts, row in zip(mine, _pattern(block) >> 16, strict=True):
            found = torch.bincount(row).cpu().numpy()
            counts[: len(found)] += found

    def histograms(self) -> Histograms:
        """All that was counted."""
        return Histograms(self._counts.total())


class Search:
    """Looks for the k-th largest magnitudes of vectors whose histograms are known.

    Args:
        histograms: counts of R vectors.
        rows: for each cut that is wanted, which vector it is of.
        keep: for each cut, how many elements are to be kept.
    """

    def __init__(self, histograms: Histograms, rows: Sequence[int], keep: Sequence[int]) -> None:
        """Find the buckets; no pass is made."""
        self.rows, self.keep = list(rows), list(keep)
        self._places = [_place(histograms.counts[row], row, k) for row, k in zip(rows, keep, strict=True)]
        self._counts = PerThread(len(self._places), FINE)

    @property
    def open(self) -> bool:
        """Whether elements must be looked at, by `add`, before `cuts` can be called."""
        return any(isinstance(place, _Place) for place in self._places)

    def add(self, block: torch.Tensor) -> None:
        """Look at (R, n) elements; from any thread."""
        mine, patterns = self._counts.mine(), _pattern(block).cpu().numpy()
        for counts, place in zip(mine, self._places, strict=True):
            if isinstance(place, _Place):
                row = patterns[place.row]
                found = row[np.flatnonzero((row >> 16) == place.bucket)]
                np.add.at(counts, found & (FINE - 1), 1)

    def cuts(self) -> list[Cut]:
        """The cuts, once all elements have been looked at."""
        counts = self._counts.total()
        return [
            place if isinstance(place, Cut) else place.settle(found)
            for place, found in zip(self._places, counts, strict=True)
        ]


@dataclass(frozen=True)
class _Place:
    """The bucket in which the k-th largest magnitude of a vector lies, and how many of its elements are kept."""

    row: int
    bucket: int
    keep: int

    def settle(self, counts: I64) -> Cut:
        low, left = _largest(counts, self.keep)
        pattern = np.array([self.bucket << 16 | low], dtype=np.int32)
        return Cut(float(pattern.view(np.float32)[0]), left / int(counts[low]))


def _place(counts: I64, row: int, keep: int) -> _Place | Cut:
    if keep >= int(counts.sum()):
        return EVERYTHING
    if keep <= 0:
        return NOTHING
    bucket, left = _largest(counts, keep)
    return EVERYTHING if bucket == 0 else _Place(row, bucket, left)


def _largest(counts: I64, keep: int) -> tuple[int, int]:
    """Where the keep-th largest lies, and how many from there are among the ``keep`` largest."""
    above = np.cumsum(counts[::-1])[::-1]
    place = int(np.flatnonzero(above >= keep)[-1])
    return place, keep - int(above[place] - counts[place])


def _pattern(block: torch.Tensor) -> torch.Tensor:
    """Bit patterns of the magnitudes in float32; int32."""
    return block.to(torch.float32).view(torch.int32) & 0x7FFFFFFF


def keep_count(density: float, numel: int) -> int:
    """How many elements a density keeps: rounded down, but at least one of any.

    A product like 0.29 · 100 = 28.999999999999996 counts as the 29 that is meant.
    """
    return min(numel, max(1, math.floor(density * numel + 1e-6)))


def histograms(vectors: Vectors, measure: Measure = values, rows: int | None = None) -> Histograms:
    """Histograms of a tensor's vectors, by one pass.

    Args:
        vectors: M vectors.
        measure: what is counted, if not the vectors themselves.
        rows: R, how many rows the measure gives; by default M.
    """
    tally = Tally(vectors.members if rows is None else rows)
    vectors.map(lambda strip: tally.add(measure(strip)))
    return tally.histograms()


def cuts(vectors: Vectors, keep: Sequence[int], rows: Sequence[int] | None = None) -> list[Cut]:
    """Cuts that keep the largest elements; no pass when the histograms tell enough, one, or two: see `find`.

    Args:
        vectors: M vectors; their histograms are read.
        keep: how many elements each cut keeps.
        rows: the vector of each cut; by default one cut per vector, in their order.
    """
    search = Search(vectors.histograms, range(vectors.members) if rows is None else rows, keep)
    return find(search, vectors, vectors.labels)


def find(search: Search, vectors: Vectors, labels: Sequence[str], measure: Measure = values) -> list[Cut]:
    """The cuts of a search within one tensor.

    When none of them is to keep more than `EXACT` elements, all keep exactly as many as they are to, at the price of a
    pass when there are equals to choose from. All or none: of two cuts of one row the higher keeps part of the lower's.

    Args:
        search: knows the histograms.
        vectors: the tensor.
        labels: R, one per row of the measure; as for `kept`.
        measure: what is ranked.
    """
    if search.open:
        vectors.map(lambda strip: search.add(measure(strip)))
    found = search.cuts()
    return _exactly(found, search.rows, vectors, labels, measure) if max(search.keep, default=0) <= EXACT else found


def _exactly(
    found: list[Cut], rows: Sequence[int], vectors: Vectors, labels: Sequence[str], measure: Measure
) -> list[Cut]:
    """The cuts with shares below which exactly as many of the equals' numbers lie as are wanted; one pass if any."""
    tied = [index for index, cut in enumerate(found) if 0 < cut.share < 1]

    def look(strip: Strip) -> list[npt.NDArray[np.float64]]:
        block, pieces = measure(strip).to(torch.float32).abs().cpu().numpy(), []
        for index in tied:
            where = np.flatnonzero(block[rows[index]] == np.float32(found[index].threshold))
            pieces.append(numbers_of(vectors.name, labels[rows[index]], where + strip.start))
        return pieces

    parts = vectors.map(look) if tied else []
    for index, pieces in zip(tied, zip(*parts, strict=True), strict=True):
        numbers = np.sort(np.concatenate(pieces))
        wanted = round(found[index].share * len(numbers))
        found[index] = Cut(found[index].threshold, float(numbers[wanted]))
    return found


def kept(block: torch.Tensor, start: int, cuts: Sequence[Cut], name: str, labels: Sequence[str]) -> torch.Tensor:
    """Which elements the cuts keep: ones and zeros.

    Args:
        block: (R, n) elements; they stay as they are.
        start: index of the first in the tensor.
        cuts: R.
        name: the tensor's key.
        labels: R; name, label and index decide which of equals are picked.

    Returns:
        (R, n) float32.
    """
    mask = block.to(torch.float32).abs()
    for row, cut, label in zip(mask, cuts, labels, strict=True):
        if cut.share == 1:
            torch.ge(row, cut.threshold, out=row)
            continue
        ties = np.flatnonzero(row.cpu().numpy() == np.float32(cut.threshold)) if cut.share else np.zeros(0, np.int64)
        torch.gt(row, cut.threshold, out=row)
        if len(ties):
            picked = numbers_of(name, label, ties + start) < cut.share
            row[torch.from_numpy(ties[picked]).to(row.device)] = 1.0
    return mask
