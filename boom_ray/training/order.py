"""Which members can be trained now: those without a trunk, and those whose trunk is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from boom_ray.store import Artifact, Store
from boom_ray.training.job import MemberJob

Result = Artifact | str
"""A member's artifact, or the reason of its failure."""


def with_trunks(store: Store, jobs: Iterable[MemberJob]) -> list[MemberJob]:
    """The trunks that jobs need and the store does not hold, the shortest first, and then the jobs."""
    trunks: dict[str, MemberJob] = {}
    jobs = list(jobs)
    for job in jobs:
        chain, one = [], job.trunk
        while one is not None and one.key not in trunks and store.get(one.kind, one.key) is None:
            chain.append(one)
            one = one.trunk
        trunks |= {one.key: one for one in reversed(chain)}
    return [*trunks.values(), *jobs]


class Order:
    """Hands out jobs when they can start.

    Args:
        jobs: a trunk among them comes before what needs it; one that is not among them is in the store.
    """

    def __init__(self, jobs: Iterable[MemberJob]) -> None:
        """All are waiting."""
        self.waiting = list(jobs)
        self._names = {job.key: job.name for job in self.waiting}

    def ready(self, results: Mapping[str, Result]) -> tuple[list[MemberJob], dict[str, Result]]:
        """Jobs that can start now, and name to reason of those that never can; neither wait any more.

        Args:
            results: name to result of what has ended.
        """
        start: list[MemberJob] = []
        lost: dict[str, Result] = {}
        for job in list(self.waiting):
            trunk = None if job.trunk is None else self._names.get(job.trunk.key)
            known = {**results, **lost}
            if trunk is None or isinstance(known.get(trunk), Artifact):
                start.append(job)
            elif trunk in known:
                lost[job.name] = f"{trunk}, which it begins with, could not be trained"
            else:
                continue
            self.waiting.remove(job)
        return start, lost
