"""The updates of a member: how many steps each takes, and with which learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boom_ray.artifacts.plan import Stage
from boom_ray.config import TrainingConfig
from boom_ray.training.optimizer import learning_rate


@dataclass(frozen=True)
class _Run:
    """Steps under one curve of the learning rate.

    Attributes:
        start: its first step.
        steps: how many.
        first: number of its first update.
        updates: how many.
        config: with its own peak.
    """

    start: int
    steps: int
    first: int
    updates: int
    config: TrainingConfig


class Course:
    """All updates of a plan.

    Every stage is a run of its own for the learning rate: it has its own warm-up, peak and fall, by the same ratios of
    its own length. Weights, moments and averages go on from stage to stage. No update has steps of two stages, so a
    stage's last update may take fewer than ``accumulation``.

    Args:
        steps: of the plan, perhaps cut off by ``max_steps``; a stage that is cut is as short as what is left of it.
        stages: what they are divided into; empty: one stage with the configured rate.
        config: how the member is trained.
    """

    def __init__(self, steps: int, stages: Sequence[Stage], config: TrainingConfig) -> None:
        """Number the updates."""
        self._each = config.accumulation
        self._runs: list[_Run] = []
        start = first = 0
        for stage in stages or [Stage("", steps)]:
            count = min(stage.steps, steps - start)
            updates = -(-count // self._each)
            peak = {} if stage.learning_rate is None else {"learning_rate": stage.learning_rate}
            self._runs.append(_Run(start, count, first, updates, config.model_copy(update=peak)))
            start, first = start + count, first + updates
        self.updates = first

    def done(self, step: int) -> int:
        """How many updates the first ``step`` steps take part in."""
        return sum(-(-max(0, min(step - run.start, run.steps)) // self._each) for run in self._runs)

    def update(self, number: int) -> tuple[int, float]:
        """Steps of update ``number``, from 0, and its learning rate."""
        run = next(run for run in self._runs if number < run.first + run.updates)
        inside = number - run.first
        return min(self._each, run.steps - inside * self._each), learning_rate(inside, run.updates, run.config)
