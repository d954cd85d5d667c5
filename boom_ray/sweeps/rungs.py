"""Tune's schedulers as a search uses them: ASHA over the rungs, or none, and processes that outlive their trials."""

from __future__ import annotations

from typing import Any

import boom_ray.runtime  # noqa: F401  isort: skip  (sets Ray's environment before Ray is imported)

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from boom_ray.config import SearchConfig
from boom_ray.sweeps.mailbox import RESOURCE, metric


class KeepProcesses:
    """Makes a scheduler keep the processes of a batch for the next one.

    With ``reuse_actors`` Tune keeps as many idle processes as there are trials waiting, or one. No trial waits while a
    batch ends, so without this each batch would start all its processes but one anew, seconds for each.
    """

    batch = 0
    _is_told = False

    def on_trial_complete(self, controller: Any, trial: Any, result: Any) -> None:
        """Tune calls this before it decides whether to keep the trial's process."""
        if not self._is_told:
            self._is_told = True
            controller._actor_cache.increase_max(trial.placement_group_factory, self.batch)
        super().on_trial_complete(controller, trial, result)  # type: ignore[misc]  # Ray Tune is untyped here


class OneRung(KeepProcesses, FIFOScheduler):  # type: ignore[misc]  # Ray Tune is untyped here
    """Every trial runs to its end."""


class ManyRungs(KeepProcesses, AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray Tune is untyped here
    """ASHA (Li et al., 2020) as Tune has it: a trial goes on if it is among the best 1/eta of its rung so far."""


def make_scheduler(settings: SearchConfig) -> TrialScheduler:
    """ASHA where there are several rungs, which one objective may have; rung r has the resource ``reduction ** r``."""
    rungs = len(settings.rungs)
    scheduler: Any = (
        OneRung()
        if rungs == 1
        else ManyRungs(
            time_attr=RESOURCE,
            metric=metric(settings.objectives[0].name),
            mode="max",
            grace_period=1,
            reduction_factor=settings.reduction,
            max_t=settings.reduction ** (rungs - 1),
            brackets=1,
        )
    )
    scheduler.batch = settings.batch
    return scheduler
