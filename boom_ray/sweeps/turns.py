"""Which trial an idle process takes next: one whose members it has in memory, if there is any."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
Models = frozenset[str]


class Turns(Generic[T]):
    """Jobs in groups by the models that must be in memory for them.

    A worker takes a job of the largest group that needs nothing loaded; without one, of the group that the fewest
    workers are at, and among those of the one with the most jobs left.

    Args:
        jobs: the models that a job needs, and the job.
    """

    def __init__(self, jobs: Iterable[tuple[Models, T]]) -> None:
        """Queue the jobs; those of a group are taken in their order."""
        self._left: dict[Models, list[T]] = {}
        for models, job in jobs:
            self._left.setdefault(models, []).append(job)
        self._at: dict[Hashable, Models] = {}

    def take(self, worker: Hashable, held: Models) -> T | None:
        """The next job of a worker, or None when nothing is left.

        Args:
            worker: who asks.
            held: what it has in memory.
        """
        self._at.pop(worker, None)
        if not self._left:
            return None
        ready = [models for models in self._left if models <= held]
        at = list(self._at.values())
        models = min(ready or self._left, key=lambda one: (0 if ready else at.count(one), -len(self._left[one])))
        self._at[worker] = models
        job = self._left[models].pop(0)
        if not self._left[models]:
            del self._left[models]
        return job
