"""The batches of a bag's datasets, and how groups of them become a plan.

A batch is of one dataset and full: in every pass over a dataset its rows are put in a keyed order and cut, and the
incomplete last batch is left out (as in the paper's code, PAPER.md section 1), other examples in every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boom_ray.artifacts.plan import I32, I64, Plan
from boom_ray.hashing import U64, mix64, stream_key


@dataclass(frozen=True)
class Block:
    """Batches of one dataset that are put in order together with those of others.

    Attributes:
        dataset: the dataset's number among the sorted names.
        passes: (n,) number of each batch's pass over the dataset.
        rows: (n, B) rows of the dataset.
        places: (n,) uint64; batches of small ones come first, equal ones by dataset.
    """

    dataset: int
    passes: I32
    rows: I64
    places: U64


@dataclass(frozen=True)
class Supply:
    """What a bag holds, and the batches that it can be cut into.

    Attributes:
        rows: dataset to (k_d,) ascending rows of the bag; a row occurs as often as the bag holds it.
        ids: dataset to (n_d,) uint64 ids of all its examples; order depends on them, not on row numbers.
        batch_size: B, queries per step over all workers.
        seed: of the order.
    """

    rows: Mapping[str, I64]
    ids: Mapping[str, U64]
    batch_size: int
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The datasets, sorted."""
        return tuple(sorted(self.rows))

    @property
    def sizes(self) -> dict[str, int]:
        """Dataset to k_d."""
        return {name: len(self.rows[name]) for name in self.names}

    def count(self, name: str, share: float = 1.0) -> int:
        """Batches of one pass: m_d = ⌊k_d / B⌋, or a share of them, rounded, at least one if there is any."""
        return part(len(self.rows[name]) // self.batch_size, share)

    def batches(self, name: str, number: int) -> I64:
        """(m_d, B) rows of pass ``number`` over a dataset."""
        rows, count = self.rows[name], self.count(name)
        hashes = keyed_hashes(rows, self.ids[name], stream_key("order", self.seed, number, name))
        ordered = rows[np.lexsort((self.ids[name][rows], hashes))]
        return ordered[: count * self.batch_size].reshape(count, self.batch_size)

    def places(self, name: str, number: int, count: int) -> U64:
        """(count,) keyed places that shuffle a dataset's batches among those of others."""
        return mix64(np.arange(count, dtype=np.uint64), stream_key("step", self.seed, number, name))

    def block(self, name: str, number: int, share: float = 1.0) -> Block:
        """The first ``share`` of pass ``number`` over a dataset, in places among the batches of others."""
        count = self.count(name, share)
        passes = np.full(count, number, np.int32)
        batches = self.batches(name, number)[:count]
        return Block(self.names.index(name), passes, batches, self.places(name, number, count))


def passes(epochs: float) -> list[tuple[int, float]]:
    """Number of every pass and the share that it takes: 2.5 are two whole ones and the first half of a third."""
    whole = int(epochs)
    rest = round(epochs - whole, 9)
    return [(number, 1.0) for number in range(whole)] + ([(whole, rest)] if rest else [])


def part(count: int, share: float) -> int:
    """A share of a number of steps, rounded half up, at least one if there is any."""
    return min(count, max(1, int(share * count + 0.5)))


def keyed_hashes(rows: I64, ids: U64, key: int) -> U64:
    """(k,) a hash of every row, equal rows next to each other; copies of a row (bootstrap) get hashes of their own."""
    copy = np.zeros(len(rows), dtype=np.uint64)
    if len(rows):
        starts = np.concatenate([[True], rows[1:] != rows[:-1]])
        first = np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))
        copy = (np.arange(len(rows)) - first).astype(np.uint64)
    return mix64(mix64(ids[rows], key) + copy, key)


def joined(supply: Supply, groups: Iterable[Sequence[Block]]) -> Plan:
    """The plan in which group follows group; the batches of a group are in the order of their places."""
    size = supply.batch_size
    blocks: list[Block] = [Block(0, np.empty(0, np.int32), np.empty((0, size), np.int64), np.empty(0, np.uint64))]
    order = [np.empty(0, np.int64)]
    start = 0
    for group in groups:
        if not group:
            continue
        dataset = np.concatenate([np.full(len(block.passes), block.dataset, np.int32) for block in group])
        order.append(start + np.lexsort((dataset, np.concatenate([block.places for block in group]))))
        start += len(dataset)
        blocks += group
    place = np.concatenate(order)
    dataset = np.concatenate([np.full(len(block.passes), block.dataset, np.int32) for block in blocks])
    passes = np.concatenate([block.passes for block in blocks])
    rows = np.concatenate([block.rows for block in blocks])
    offsets = np.arange(len(place) + 1, dtype=np.int64) * size
    return Plan(supply.names, dataset[place], passes[place], offsets, rows[place].reshape(-1))
