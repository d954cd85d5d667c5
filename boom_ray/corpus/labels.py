"""Labelled examples become contrastive ones: a positive of the same label, negatives of other labels.

Candidates come from pools: per label the texts with the smallest keyed hashes of their example ids, so that they depend
on the set of examples alone and fit into memory however many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from boom_ray.errors import DataError
from boom_ray.hashing import U64, mix64, stream_key

POOL = 256  # texts per label
POOL_TOTAL = 1 << 19  # texts over all labels; with very many labels each has a smaller pool
POOL_LEAST = 4
COLUMNS = ["id", "query", "label"]
_POOL_KEY = stream_key("label-pool")
_POSITIVE_KEY = stream_key("label-positive")


@dataclass(frozen=True)
class Pools:
    """Candidate texts, ordered by label, then by keyed hash.

    Attributes:
        texts: (n,) candidates.
        ranges: label to its range in ``texts``.
    """

    texts: list[str]
    ranges: dict[str, tuple[int, int]]

    def names(self) -> Pools:
        """Pools of the labels' names instead of texts."""
        labels = list(self.ranges)
        return Pools(labels, {label: (place, place + 1) for place, label in enumerate(labels)})


def make_pools(tables: Iterable[pa.Table]) -> Pools:
    """Choose the candidates.

    Args:
        tables: columns ``id``, ``query`` and ``label``; together all examples, each once. One is in memory at a time.

    Raises:
        DataError: there are fewer than two labels.
    """
    chosen: pa.Table | None = None
    for table in tables:
        fresh = table.select(COLUMNS)
        chosen = candidates(fresh if chosen is None else pa.concat_tables([chosen, fresh]))
    labels = [] if chosen is None else sorted(set(chosen["label"].to_pylist()))
    if chosen is None or len(labels) < 2:
        only = f"its only label is {labels[0]!r}" if labels else "it has no example"
        raise DataError(f"A labelled dataset needs at least two labels for negatives; {only}.")
    found = chosen["label"].to_pylist()
    edges = [place for place in range(len(found)) if place == 0 or found[place] != found[place - 1]]
    ranges = {found[start]: (start, end) for start, end in zip(edges, [*edges[1:], len(found)], strict=True)}
    return Pools(chosen["query"].to_pylist(), ranges)


def contrast(
    examples: pa.Table, pools: Pools, positive: Literal["text", "label"], negatives: int
) -> tuple[pa.Table, int]:
    """Give labelled examples their positives and negatives.

    Args:
        examples: rows of schema `EXAMPLES` with a label each.
        pools: of the whole dataset.
        positive: another text of the label, or the label's name; negatives are of the same kind.
        negatives: most negatives per example; fewer when the other labels have fewer texts.

    Returns:
        The examples that have a positive, and how many have none: the only text of their label.
    """
    source = pools if positive == "text" else pools.names()
    ids = id64(examples["id"])
    labels, queries = examples["label"].to_pylist(), examples["query"].to_pylist()
    starts = mix64(ids, _POSITIVE_KEY)
    draws = _draws(ids, negatives)
    chosen_positives: list[list[str]] = []
    chosen_negatives: list[list[str]] = []
    kept = np.zeros(len(ids), dtype=np.bool_)
    for row, (label, query) in enumerate(zip(labels, queries, strict=True)):
        found = _positive(source, label, query, int(starts[row]))
        if found is not None:
            kept[row] = True
            chosen_positives.append([found])
            chosen_negatives.append(_negatives(source, label, {query, found}, draws[row].tolist(), negatives))
    result = examples.filter(pa.array(kept))
    for name, values in (("positives", chosen_positives), ("negatives", chosen_negatives)):
        place = result.schema.get_field_index(name)
        result = result.set_column(place, result.schema.field(name), pa.array(values, pa.list_(pa.string())))
    return result, int(len(kept) - kept.sum())


def id64(column: pa.ChunkedArray) -> U64:
    """(n,) the first 8 bytes of each id as a number, in the order of the ids."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return np.empty(0, dtype=np.uint64)
    raw = np.frombuffer(array.buffers()[1], dtype=">u8").reshape(-1, 2)
    return raw[array.offset : array.offset + len(array), 0].astype(np.uint64)


def candidates(table: pa.Table) -> pa.Table:
    """The rows of smallest keyed hash of each label, ordered by label and hash.

    How many depends on the number of labels, which only grows from table to table: what is dropped early, or of one
    of several tables, would be dropped at the end, too.

    Args:
        table: columns ``id``, ``query`` and ``label``.
    """
    hashes = mix64(id64(table["id"]), _POOL_KEY)
    labels = table["label"].combine_chunks().dictionary_encode()
    names = np.asarray(labels.dictionary.to_pylist(), dtype=object)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(names, kind="stable")] = np.arange(len(names))
    codes = rank[labels.indices.to_numpy(zero_copy_only=False)]
    count = min(POOL, max(POOL_LEAST, POOL_TOTAL // max(1, len(names))))
    order = np.lexsort((hashes, codes))
    codes = codes[order]
    within = np.arange(len(codes)) - np.searchsorted(codes, codes, side="left")
    return table.take(pa.array(order[within < count])).combine_chunks()


def _positive(source: Pools, label: str, query: str, start: int) -> str | None:
    """The first text of the label from place ``start`` on, around the pool, that is not the query itself."""
    low, high = source.ranges.get(label, (0, 0))
    for step in range(high - low):
        text = source.texts[low + (start + step) % (high - low)]
        if text != query:
            return text
    return None


def _draws(ids: U64, negatives: int) -> U64:
    """(n, 2·negatives + 2) keyed hashes per example; more than are needed, since some meet the same text."""
    count = 2 * negatives + 2
    return np.stack([mix64(ids, stream_key("label-negative", draw)) for draw in range(count)], axis=1)


def _negatives(source: Pools, label: str, taken: set[str], draws: list[int], wanted: int) -> list[str]:
    """Distinct texts of other labels: those drawn, then, if they are too few, those after the first one drawn."""
    low, high = source.ranges[label]
    others = len(source.texts) - (high - low)
    found: dict[str, None] = {}
    for draw in itertools.chain(draws, range(draws[0], draws[0] + others)):
        place = draw % others
        text = source.texts[place if place < low else place + high - low]
        if text not in taken:
            found[text] = None
            if len(found) == wanted:
                break
    return list(found)
