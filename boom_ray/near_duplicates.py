"""Texts that are nearly the same as some text of a held set: MinHash proposes, exact similarity decides.

The similarity of two texts is the Jaccard similarity of their shingles: the share of runs of five characters that both
have, among all that either has. Case, punctuation and the amount of white space do not count. Texts shorter than
``min_characters`` have no shingles and are near to nothing: whoever calls this compares them for equality.

Why characters, and five: of 300 real texts of 13 to 20 words in which one word was replaced, runs of five words find
10 % at a threshold of 0.8, runs of five characters 70 %; with one letter changed 12 % and 100 %, with both halves
swapped 0 % and 100 %. Only from 50 words on are they equal. Runs of four or three characters find more of short texts
(82 % and 89 %), but between the training and test texts of 25 public sets they also report 1.2 and 1.6 times as many,
which were not judged one by one. Languages without spaces need no segmentation.

MinHash (Broder, "On the resemblance and containment of documents", 1997) with banded signatures, by the library
datasketch, finds candidates; fewer than one in a million pairs at the threshold is missed, fewer above it, and every
pair found is checked exactly. So results depend neither on the library's version nor on how texts are divided among
workers. The bands are sorted arrays and not datasketch's ``MinHashLSH``, since Ray's workers share arrays without a
copy: its dictionaries for 91,000 texts take 10 s to load, and every worker would need its own.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from datasketch import MinHash

from boom_ray.config import NearDuplicatesConfig
from boom_ray.hashing import U64, mix64, stream_key

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
SHINGLE = 5  # characters
PERMUTATIONS = 128
SEED = 1
MISSED = 1e-6  # largest probability that a pair at the threshold is no candidate
MARGIN = 0.25  # candidates estimated so far below the threshold are not checked: at least 5.6 standard deviations
AT_ONCE = 256  # texts looked for together; bounds the candidates in memory
PAIRS_AT_ONCE = 1 << 15  # candidates whose signatures are compared together
ROUNDING = 1e-9
WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Matches:
    """Pairs of an asked and a held text, sorted by both.

    Attributes:
        asked: (n,) places among the texts that were looked for.
        held: (n,) places among the held texts.
        similarity: (n,) from the threshold to 1.
    """

    asked: I64
    held: I64
    similarity: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.asked)


def shingles(text: str, min_characters: int) -> frozenset[str]:
    """All runs of `SHINGLE` characters of a text's words, case aside; none if they have too few characters."""
    words = " ".join(WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))
    if len(words) < min_characters:
        return frozenset()
    return frozenset(words[start : start + SHINGLE] for start in range(len(words) - SHINGLE + 1))


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two sets of shingles, 0 if either is empty."""
    if not one or not other:
        return 0.0
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def band_sizes(threshold: float) -> tuple[int, int]:
    """Number of bands and values per band: as selective as `MISSED` allows for pairs at the threshold."""
    sizes = [(PERMUTATIONS // rows, rows) for rows in range(PERMUTATIONS, 0, -1)]
    return next(one for one in sizes if (1 - threshold ** one[1]) ** one[0] <= MISSED)


@dataclass(frozen=True)
class NearIndex:
    """Held texts, indexed so that their near-duplicates are found fast; all of it arrays, which Ray shares.

    Attributes:
        settings: what is near.
        texts: (N,) the held texts, as UTF-8.
        rows: (n,) places of those that have shingles.
        signatures: (n, `PERMUTATIONS`) MinHash values.
        bands: (b, n) hashes of each band of the signatures, ascending.
        order: (b, n) which signature each hash is of.
    """

    settings: NearDuplicatesConfig
    texts: pa.BinaryArray
    rows: I64
    signatures: U32
    bands: U64
    order: I32

    @classmethod
    def of(cls, texts: Sequence[str], settings: NearDuplicatesConfig) -> NearIndex:
        """Index texts; thousands a second on one core.

        They take 12 bytes per band (32 bands at a threshold of 0.8) and 512 bytes each of memory that workers share.
        """
        sets = [shingles(text, settings.min_characters) for text in texts]
        rows = np.flatnonzero([bool(one) for one in sets])
        signatures = _signatures([sets[row] for row in rows])
        hashes = _band_hashes(signatures, *band_sizes(settings.threshold))
        order = np.argsort(hashes, axis=1, kind="stable")
        encoded = pa.array([_encode(text) for text in texts], pa.large_binary())
        ascending = np.take_along_axis(hashes, order, axis=1)
        return cls(settings, encoded, rows, signatures, ascending, order.astype(np.int32))

    def find(self, texts: Sequence[str]) -> Matches:
        """All pairs of one of ``texts`` and a held text that are at least as similar as the threshold says.

        A text with shingles matches itself; a text without any matches nothing.
        """
        found: list[tuple[int, int, float]] = []
        for start in range(0, len(texts) if len(self.rows) else 0, AT_ONCE):
            sets = [shingles(text, self.settings.min_characters) for text in texts[start : start + AT_ONCE]]
            asked = [place for place, one in enumerate(sets) if one]
            for query, held in self._candidates(_signatures([sets[place] for place in asked])):
                row = int(self.rows[held])
                value = similarity(sets[asked[query]], self._held(row))
                if value >= self.settings.threshold - ROUNDING:
                    found.append((start + asked[query], row, value))
        found.sort()
        return Matches(
            np.array([one[0] for one in found], np.int64),
            np.array([one[1] for one in found], np.int64),
            np.array([one[2] for one in found], np.float64),
        )

    def _candidates(self, signatures: U32) -> list[tuple[int, int]]:
        """Pairs of a signature and a held one that share a band and are estimated to be similar enough."""
        if not len(signatures):
            return []
        pairs: list[I64] = []
        hashes = _band_hashes(signatures, *band_sizes(self.settings.threshold))
        for own, band, order in zip(hashes, self.bands, self.order, strict=True):
            first = np.searchsorted(band, own, "left")
            counts = np.searchsorted(band, own, "right") - first
            query = np.repeat(np.arange(len(own)), counts)
            place = np.arange(len(query)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
            pairs.append(query * len(band) + order[place])
        query, held = np.divmod(np.unique(np.concatenate(pairs)), len(self.rows))
        agreement = [
            (signatures[query[start:end]] == self.signatures[held[start:end]]).mean(axis=1)
            for start in range(0, len(query), PAIRS_AT_ONCE)
            for end in [start + PAIRS_AT_ONCE]
        ]
        close = np.concatenate([np.zeros(0), *agreement]) >= self.settings.threshold - MARGIN
        return list(zip(query[close].tolist(), held[close].tolist(), strict=True))

    def _held(self, row: int) -> frozenset[str]:
        return _held_shingles(self.texts[row].as_py(), self.settings.min_characters)


@functools.lru_cache(maxsize=1024)  # texts made from one template meet the same held texts again and again
def _held_shingles(text: bytes, min_characters: int) -> frozenset[str]:
    return shingles(text.decode("utf-8", "surrogatepass"), min_characters)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hash(shingle: str) -> int:
    return xxhash.xxh32_intdigest(_encode(shingle))


def _signatures(sets: Sequence[frozenset[str]]) -> U32:
    """(n, `PERMUTATIONS`) MinHash values of non-empty sets."""
    made = MinHash.generator(sets, num_perm=PERMUTATIONS, seed=SEED, hashfunc=_hash, scheme="affine32")
    values = [one.hashvalues for one in made]
    return np.array(values, np.uint32).reshape(len(values), PERMUTATIONS)


def _band_hashes(signatures: U32, bands: int, rows: int) -> U64:
    """(bands, n) one hash per band and signature."""
    values = signatures[:, : bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    hashes = np.zeros((len(signatures), bands), np.uint64)
    for row in range(rows):
        hashes = mix64(hashes ^ values[:, :, row], stream_key("band", row))
    return np.ascontiguousarray(hashes.T)
