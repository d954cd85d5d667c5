"""Which texts look like an answer by their words alone: BM25 over the words of some queries, in NumPy.

A proxy keeps the passages that are hardest to tell from the relevant ones. Only the words of its few queries are
indexed, and every choice is the same in whatever order the texts come, ties included, which libraries for search do
not promise.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from boom_ray.hashing import U64

F64 = npt.NDArray[np.float64]
K1, B = 1.2, 0.75
"""How fast a repeated word stops counting, and how much long texts are held back; the usual values."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Words in lower case, cut at underscores too; single characters where writing puts no spaces between words."""
    return _WORD.findall(text.lower())


class Bm25:
    """Texts, indexed for the words of some queries.

    The formula is that of Lucene: sum over the query's words of ``idf * tf / (tf + K1 * (1 - B + B * length / mean
    length))`` with ``idf = ln(1 + (N - df + 0.5) / (df + 0.5))``.

    Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", FnTIR 3(4), 2009.
    """

    def __init__(self, texts: Sequence[str], queries: Iterable[str]) -> None:
        """Count the words of ``queries`` in ``texts``; at least one text."""
        self.size = len(texts)
        found = {word: (array("q"), array("d")) for query in queries for word in words(query)}
        lengths = np.empty(self.size)
        for place, text in enumerate(texts):
            tokens = words(text)
            lengths[place] = len(tokens)
            for word, count in Counter(filter(found.__contains__, tokens)).items():
                found[word][0].append(place)
                found[word][1].append(count)
        penalty = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1.0))
        self._found = {
            word: (np.frombuffer(places, dtype=np.int64), np.frombuffer(counts))
            for word, (places, counts) in found.items()
            if places
        }
        self._penalty = penalty

    def scores(self, query: str) -> F64:
        """Score of every text for one of the queries, (N,); 0 where no word occurs.

        Words are added in their alphabetical order, so neither the order of texts nor other queries change a bit.
        """
        total = np.zeros(self.size)
        for word, repeated in sorted(Counter(words(query)).items()):
            if word in self._found:
                places, counts = self._found[word]
                idf = np.log1p((self.size - len(places) + 0.5) / (len(places) + 0.5))
                total[places] += repeated * idf * counts / (counts + self._penalty[places])
        return total


def hardest(scores: F64, keys: U64, count: int, leave_out: Collection[int] = ()) -> npt.NDArray[np.intp]:
    """The places of the highest scores above 0, best first; of equal ones those with the smaller key.

    Args:
        scores: (N,).
        keys: (N,), hashes of the texts.
        count: how many; fewer where fewer are above 0.
        leave_out: places that do not count.
    """
    open_scores = scores.copy()
    open_scores[list(leave_out)] = 0.0
    candidates = np.flatnonzero(open_scores > 0)
    if len(candidates) > count > 0:
        least = np.partition(open_scores[candidates], -count)[-count]
        candidates = candidates[open_scores[candidates] >= least]
    best = np.lexsort((keys[candidates], -open_scores[candidates]))
    return candidates[best[:count]]
