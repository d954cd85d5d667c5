"""A schedule with every default and name resolved, and the plan it makes of a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from boom_ray.artifacts.plan import I64, Plan
from boom_ray.bags.schedules.batches import Supply
from boom_ray.bags.schedules.mixing import example_mixing
from boom_ray.bags.schedules.sequential import StageRule, dataset_sequential, in_order, task_sequential, two_stage
from boom_ray.bags.schedules.shuffled import batch_level_shuffling, round_robin, temperature_proportional
from boom_ray.config import DatasetConfig, ScheduleConfig
from boom_ray.config.schedule import PLAIN, USED, ScheduleKind
from boom_ray.hashing import U64


@dataclass(frozen=True)
class Schedule:
    """How a bag becomes a plan (`boom_ray.config.ScheduleConfig` says what the fields mean).

    Attributes:
        kind: which schedule.
        order: which dataset or task type comes first.
        names: the order, if it is given.
        temperature: of the proportional mix.
        stages: of two-stage training, without those that have no dataset in the bag.
        tasks: dataset to its task type; only for ``task-sequential``.
    """

    kind: ScheduleKind = PLAIN
    order: str = "name"
    names: tuple[str, ...] = ()
    temperature: float = 1.0
    stages: tuple[StageRule, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether it is batch-level shuffling."""
        return self.kind == PLAIN

    def identity(self) -> str | dict[str, Any]:
        """The fields that the kind reads, as JSON; batch-level shuffling is a bare word, as in older keys."""
        if self.is_plain:
            return self.kind
        used = USED.get(self.kind, frozenset()) | {"kind"} | ({"tasks"} if self.tasks else set())
        return {name: value for name, value in asdict(self).items() if name in used}

    def plan(self, rows: Mapping[str, I64], ids: Mapping[str, U64], batch_size: int, epochs: float, seed: int) -> Plan:
        """The steps of a bag.

        Args:
            rows: dataset to (k_d,) ascending rows of the bag; a row occurs as often as the bag holds it.
            ids: dataset to (n_d,) uint64 ids of all its examples.
            batch_size: B, queries per step over all workers.
            epochs: passes over the bag, see `boom_ray.bags.schedules.batches.passes`; of stages, their own count.
            seed: of the order.
        """
        supply = Supply(rows, ids, batch_size, seed)
        if self.kind == "two-stage":
            return two_stage(supply, self.stages)
        if self.kind == "example-mixing":
            return example_mixing(supply, epochs)
        if self.kind == "temperature-proportional":
            return temperature_proportional(supply, self.temperature, epochs)
        if self.is_plain:
            return batch_level_shuffling(rows, ids, batch_size, epochs, seed)
        sizes = supply.sizes
        if self.kind == "task-sequential":
            by_task = dict.fromkeys((self.tasks[name] for name in sizes), 0)
            for name, size in sizes.items():
                by_task[self.tasks[name]] += size
            return task_sequential(supply, self.tasks, in_order(by_task, self.order, self.names, seed), epochs)
        sequence = in_order(sizes, self.order, self.names, seed)
        make = round_robin if self.kind == "round-robin" else dataset_sequential
        return make(supply, sequence, epochs)


def schedule_of(config: ScheduleConfig, datasets: Sequence[DatasetConfig], epochs: float) -> Schedule:
    """The schedule of a bag.

    Args:
        config: what the user set, checked against the whole corpus.
        datasets: those that the bag draws from.
        epochs: ``training.epochs``, for stages that have none of their own.
    """
    if config.kind == "two-stage":
        chosen = [(stage, stage.chosen(datasets)) for stage in config.all_stages]
        return Schedule(
            config.kind,
            stages=tuple(
                StageRule(one.name, tuple(sorted(names)), one.epochs or epochs, one.learning_rate, one.share)
                for one, names in chosen
                if names
            ),
        )
    by_task = config.kind == "task-sequential"
    tasks = {one.name: one.task_type for one in datasets} if by_task else {}
    there = set(tasks.values()) if by_task else {one.name for one in datasets}
    return Schedule(
        config.kind,
        config.order,
        tuple(name for name in config.names if name in there),
        config.temperature,
        tasks=dict(sorted(tasks.items())),
    )
