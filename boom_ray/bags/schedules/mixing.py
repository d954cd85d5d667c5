"""Example-level mixing, the control: what batches of one dataset each are worth shows in comparison with it."""

from __future__ import annotations

import numpy as np

from boom_ray.artifacts.plan import I32, I64, Plan
from boom_ray.bags.schedules.batches import Supply, keyed_hashes, part, passes
from boom_ray.hashing import stream_key


def example_mixing(supply: Supply, epochs: float) -> Plan:
    """The examples of all datasets shuffled together, and cut into steps.

    In every epoch the last Σ k_d mod B examples of the order are left out, whatever their datasets; so datasets smaller
    than a batch are trained on, too. Inside a step examples are sorted by dataset into parts, for all else of it is
    said by part: every example has the loss of its own dataset. Where that takes in-batch negatives, they come from the
    whole step, across datasets, as in a trainer that knows nothing of datasets; graded losses compare the pairs of a
    part. The step's loss is the mean over parts weighted by their numbers of examples. Workers take slices of the whole
    step, of whatever parts.

    Args:
        supply: the bag.
        epochs: passes over the bag; with a fraction, the last one takes the first share of its steps.

    Returns:
        A plan of epochs · ⌊Σ k_d / B⌋ mixed steps, rounded.
    """
    names, size = supply.names, supply.batch_size
    owner = np.repeat(np.arange(len(names), dtype=np.int32), [len(supply.rows[name]) for name in names])
    rows = np.concatenate([np.empty(0, np.int64), *(supply.rows[name] for name in names)])
    ids = np.concatenate([np.empty(0, np.uint64), *(supply.ids[name][supply.rows[name]] for name in names)])
    orders, counts = [np.empty(0, np.int64)], list[int]()
    for epoch, share in passes(epochs):
        hashes = [
            keyed_hashes(supply.rows[name], supply.ids[name], stream_key("mix", supply.seed, epoch, name))
            for name in names
        ]
        count = part(len(rows) // size, share)
        order = np.lexsort((ids, owner, np.concatenate([np.empty(0, np.uint64), *hashes])))[: count * size]
        orders.append(order[np.lexsort((owner[order], np.arange(len(order)) // size))])
        counts.append(count)
    chosen = np.concatenate(orders)
    return _plan(names, owner[chosen], rows[chosen], np.repeat(np.arange(len(counts), dtype=np.int32), counts), size)


def _plan(names: tuple[str, ...], owner: I32, rows: I64, epoch: I32, size: int) -> Plan:
    """The plan of steps of ``size`` rows, one after the other, sorted by dataset inside each."""
    step = np.arange(len(rows)) // size
    fresh = np.ones(len(rows), dtype=np.bool_)
    fresh[1:] = (step[1:] != step[:-1]) | (owner[1:] != owner[:-1])
    begins = np.flatnonzero(fresh)
    starts = np.searchsorted(begins, np.arange(len(epoch) + 1) * size)
    offsets = np.append(begins, len(rows))
    return Plan(names, owner[begins], epoch[step[begins]], offsets, rows, starts)
