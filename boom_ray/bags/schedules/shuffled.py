"""Schedules in which steps of all datasets alternate from the beginning to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from boom_ray.artifacts.plan import I64, Plan
from boom_ray.bags.schedules.batches import Block, Supply, joined, part, passes
from boom_ray.hashing import U64


def batch_level_shuffling(
    rows: Mapping[str, I64], ids: Mapping[str, U64], batch_size: int, epochs: float, seed: int
) -> Plan:
    """Batch-level shuffling (PAPER.md section 1): batches of one dataset each, the batches of all datasets shuffled.

    In every epoch each dataset's rows are put in a keyed order and cut into batches of ``batch_size``; the incomplete
    last one is left out (as in the paper's code), another one each epoch. Then all batches are put in a keyed order.

    Args:
        rows: dataset to (k_d,) rows of the bag; a row occurs as often as the bag holds it.
        ids: dataset to (n_d,) uint64 ids of all its examples; order depends on them, not on row numbers.
        batch_size: B, queries per step over all workers.
        epochs: passes over the bag; with a fraction, the last one takes the first share of each dataset's batches,
            rounded, at least one.
        seed: seed of the order.

    Returns:
        A plan of sum over epochs and datasets of floor(k_d / B) steps.
    """
    supply = Supply(rows, ids, batch_size, seed)
    return joined(supply, ([supply.block(name, *one) for name in supply.names] for one in passes(epochs)))


def round_robin(supply: Supply, sequence: Sequence[str], epochs: float) -> Plan:
    """Datasets take turns, one step each, in every epoch until each has given all its batches.

    A dataset that has none left drops out and the others go on, so every epoch ends with the largest dataset alone. All
    examples of full batches are used once per epoch, as under batch-level shuffling.

    Args:
        supply: the bag.
        sequence: its datasets in the order of their turns.
        epochs: passes over the bag.
    """

    def block(name: str, epoch: int, share: float, turn: int) -> Block:
        batches = supply.batches(name, epoch)[: supply.count(name, share)]
        rounds = np.arange(len(batches), dtype=np.uint64)
        places = rounds * np.uint64(len(sequence)) + np.uint64(turn)
        return Block(supply.names.index(name), np.full(len(batches), epoch, np.int32), batches, places)

    return joined(supply, ([block(name, *one, turn) for turn, name in enumerate(sequence)] for one in passes(epochs)))


def temperature_proportional(supply: Supply, temperature: float, epochs: float) -> Plan:
    """As many steps as batch-level shuffling, given to datasets in proportion to n^(1/T), and shuffled.

    n counts a dataset's examples in full batches. `shares` says how many steps of an epoch each dataset gets. A dataset
    that needs more batches than it has begins a new pass over its examples, in a new order; one that needs fewer goes
    on in the next epoch where it stopped. So large datasets are not exhausted. T = 1 is batch-level shuffling; datasets
    smaller than a batch get no step. (``bags.mixture.temperature`` instead leaves out examples of large datasets.)

    Args:
        supply: the bag.
        temperature: T ≥ 1; larger is flatter.
        epochs: as many steps are made as batch-level shuffling makes in so many passes.
    """
    counts = {name: supply.count(name) for name in supply.names}
    steps = shares(counts, temperature)
    return joined(
        supply,
        (
            [_next_batches(supply, name, epoch, count, share) for name, count in steps.items() if count]
            for epoch, share in passes(epochs)
        ),
    )


def shares(counts: Mapping[str, int], temperature: float) -> dict[str, int]:
    """Share out the sum of the counts m_d in proportion to m_d^(1/T).

    Every dataset gets the whole part of its share; the steps that are left go to the largest fractions, equal ones by
    name. So a dataset that has a batch gets at least one step.
    """
    total = sum(counts.values())
    powers = {name: count ** (1 / temperature) for name, count in counts.items() if count}
    scale = total / sum(powers.values()) if powers else 0.0
    exact = {name: scale * powers.get(name, 0.0) for name in sorted(counts)}
    whole = {name: int(share) for name, share in exact.items()}
    by_fraction = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in by_fraction[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def _next_batches(supply: Supply, name: str, epoch: int, count: int, share: float) -> Block:
    """The first ``share`` of batches ``epoch · count`` to ``(epoch + 1) · count`` of the endless passes over a dataset.

    In places among those of other datasets.
    """
    whole, taken = supply.count(name), part(count, share)
    numbers = np.arange(epoch * count, epoch * count + taken)
    own = (numbers // whole).astype(np.int32)
    batches = [supply.batches(name, number)[numbers[own == number] % whole] for number in range(own[0], own[-1] + 1)]
    return Block(supply.names.index(name), own, np.concatenate(batches), supply.places(name, epoch, taken))
