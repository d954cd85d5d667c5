"""Schedules: how the examples of a bag become the steps of a plan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from boom_ray.artifacts.plan import I32, I64, Plan
from boom_ray.hashing import U64, mix64, stream_key


def batch_level_shuffling(
    rows: Mapping[str, I64], ids: Mapping[str, U64], batch_size: int, epochs: int, seed: int
) -> Plan:
    """Batch-level shuffling (PAPER.md section 1): batches of one dataset each, the batches of all datasets shuffled.

    In every epoch each dataset's rows are put in a keyed order and cut into batches of ``batch_size``; the incomplete
    last one is left out (as in the paper's code), another one each epoch. Then all batches are put in a keyed order.

    Args:
        rows: dataset to (k_d,) rows of the bag; a row occurs as often as the bag holds it.
        ids: dataset to (n_d,) uint64 ids of all its examples; order depends on them, not on row numbers.
        batch_size: B, queries per step over all workers.
        epochs: passes over the bag.
        seed: seed of the order.

    Returns:
        A plan of sum over epochs and datasets of floor(k_d / B) steps.
    """
    names = tuple(sorted(rows))
    parts: list[tuple[I64, I32, I32, U64]] = []
    for epoch in range(epochs):
        for index, name in enumerate(names):
            ordered = _keyed_order(rows[name], ids[name], stream_key("order", seed, epoch, name))
            count = len(ordered) // batch_size
            batches = ordered[: count * batch_size].reshape(count, batch_size)
            place = mix64(np.arange(count, dtype=np.uint64), stream_key("step", seed, epoch, name))
            parts.append((batches, np.full(count, index, np.int32), np.full(count, epoch, np.int32), place))
    batches = np.concatenate([part[0] for part in parts])
    dataset = np.concatenate([part[1] for part in parts])
    epoch_of = np.concatenate([part[2] for part in parts])
    order = np.lexsort((dataset, np.concatenate([part[3] for part in parts]), epoch_of))
    offsets = np.arange(len(order) + 1, dtype=np.int64) * batch_size
    return Plan(names, dataset[order], epoch_of[order], offsets, batches[order].reshape(-1))


def _keyed_order(rows: I64, ids: U64, key: int) -> I64:
    """Rows in the order of their keyed hashes; copies of a row (bootstrap) get hashes of their own."""
    values = ids[rows]
    copy = np.zeros(len(rows), dtype=np.uint64)
    if len(rows):
        starts = np.concatenate([[True], rows[1:] != rows[:-1]])
        first = np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))
        copy = (np.arange(len(rows)) - first).astype(np.uint64)
    hashes = mix64(mix64(values, key) + copy, key)
    return rows[np.lexsort((values, hashes))]
