"""Which pair of model and task an idle actor takes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from boom_ray.config import TaskConfig
from boom_ray.evaluation.scores import ModelRef

UNKNOWN_SIZE = 1 << 62
"""Of tasks that mteb has no statistics of: they may be large, and are taken first."""


@dataclass(frozen=True)
class Job:
    """One pair to evaluate: its place in the store, and how much text it makes the model encode (characters)."""

    model: ModelRef
    task: TaskConfig
    spec: dict[str, Any]
    inputs: dict[str, Any]
    size: int

    @property
    def unit(self) -> str:
        """How the pair is called in progress and errors."""
        return f"{self.model.name}/{self.task.name}"


class Schedule:
    """Jobs by model, largest first, equal ones as given.

    An actor keeps its model while that has jobs left, so a model is loaded once per actor; then it takes the model
    that the fewest actors work on, and among those the one with the most work left.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Queue the jobs."""
        self._left: dict[str, list[Job]] = defaultdict(list)
        self._workers: dict[str, int] = defaultdict(int)
        for job in sorted(jobs, key=lambda job: job.size, reverse=True):
            self._left[job.model.name].append(job)

    def take(self, loaded: str | None) -> Job | None:
        """The next job of an actor that has the model named ``loaded`` in memory, or None when nothing is left."""
        name = loaded if loaded is not None and self._left.get(loaded) else self._other(loaded)
        return self._left[name].pop(0) if name is not None else None

    def _other(self, loaded: str | None) -> str | None:
        if loaded is not None:
            self._workers[loaded] -= 1
        open_models = [name for name, jobs in self._left.items() if jobs]
        if not open_models:
            return None
        name = min(open_models, key=lambda name: (self._workers[name], -sum(job.size for job in self._left[name])))
        self._workers[name] += 1
        return name
