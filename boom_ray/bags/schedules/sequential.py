"""Schedules that train on one part of the data after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from boom_ray.artifacts.plan import Plan, Stage
from boom_ray.bags.schedules.batches import Block, Supply, joined, passes
from boom_ray.hashing import stream_key


@dataclass(frozen=True)
class StageRule:
    """One stage of `two_stage`.

    Attributes:
        name: for people.
        datasets: what it trains on.
        epochs: passes over them.
        learning_rate: its peak; None: that of the training configuration.
        share: of each dataset's batches in every pass, in (0, 1].
    """

    name: str
    datasets: tuple[str, ...]
    epochs: float
    learning_rate: float | None = None
    share: float = 1.0


def in_order(sizes: Mapping[str, int], order: str, given: Sequence[str], seed: int) -> list[str]:
    """Names in an order.

    Args:
        sizes: name to number of examples.
        order: ``name``; ``size-ascending`` or ``size-descending`` (equal sizes by name); ``random``, by keyed hash; or
            ``given``.
        given: the names in order ``given``; those that are no keys of ``sizes`` are left out.
        seed: of the random order.
    """
    if order == "given":
        return [name for name in given if name in sizes]
    ranks: dict[str, Callable[[str], int]] = {
        "name": lambda name: 0,
        "size-ascending": lambda name: sizes[name],
        "size-descending": lambda name: -sizes[name],
        "random": lambda name: stream_key("sequence", seed, name),
    }
    return sorted(sizes, key=lambda name: (ranks[order](name), name))


def dataset_sequential(supply: Supply, sequence: Sequence[str], epochs: float) -> Plan:
    """One dataset after another, all epochs of one before the next begins.

    Each dataset's steps are those that batch-level shuffling has of it. The learning rate has one curve over all of
    them. (The paper names the strategy and says neither the order nor where epochs go, PAPER.md section 1.)

    Args:
        supply: the bag.
        sequence: its datasets in order.
        epochs: passes over each.
    """
    return joined(supply, ([supply.block(name, *one)] for name in sequence for one in passes(epochs)))


def task_sequential(supply: Supply, tasks: Mapping[str, str], sequence: Sequence[str], epochs: float) -> Plan:
    """One task type after another, all epochs of one before the next; batch-level shuffling inside each.

    Args:
        supply: the bag.
        tasks: dataset to its task type.
        sequence: the task types in order.
        epochs: passes over the datasets of each.
    """
    members = {task: [name for name in supply.names if tasks[name] == task] for task in sequence}
    return joined(
        supply,
        ([supply.block(name, *one) for name in members[task]] for task in sequence for one in passes(epochs)),
    )


def two_stage(supply: Supply, stages: Sequence[StageRule]) -> Plan:
    """Stage after stage, each batch-level shuffling of its own datasets with its own epochs and learning rate.

    Passes are counted through all stages: what a dataset gives in a later stage comes in another order, with other hard
    negatives. Every pass takes ``share`` of each dataset's batches, rounded, but at least one. Stages without a step in
    this bag are left out.
    """
    groups: list[list[Block]] = []
    made: list[Stage] = []
    number = 0
    for stage in stages:
        names = [name for name in supply.names if name in stage.datasets]
        taken = [(number + own, stage.share * share) for own, share in passes(stage.epochs)]
        groups += [[supply.block(name, *one) for name in names] for one in taken]
        steps = sum(supply.count(name, share) for _, share in taken for name in names)
        if steps:
            made.append(Stage(stage.name, steps, stage.learning_rate))
        number += len(taken)
    return replace(joined(supply, groups), stages=tuple(made))
