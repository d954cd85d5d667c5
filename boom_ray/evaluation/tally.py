"""How far an evaluation is, as one unit of progress beside those of its pairs."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.evaluation.schedule import UNKNOWN_SIZE, Job
from boom_ray.events import Event, Report

UNIT = "all pairs"


class Tally:
    """Counts the text of the pairs that have ended, or the pairs where the size of a task is not known.

    Of a single pair nothing is said that its own unit does not say.
    """

    def __init__(self, jobs: Sequence[Job], report: Report) -> None:
        """Say that nothing is done."""
        self._report = report
        self._pairs, self._ended = len(jobs), 0
        self._counts_text = all(0 < job.size < UNKNOWN_SIZE for job in jobs)
        self._total, self._done = sum(map(self._size, jobs)), 0
        self._tell()

    def end(self, job: Job) -> None:
        """A pair has ended, with a score or without."""
        self._ended += 1
        self._done += self._size(job)
        self._tell()

    def _size(self, job: Job) -> int:
        return job.size if self._counts_text else 1

    def _tell(self) -> None:
        if self._pairs > 1:
            note, measure = (f"{self._ended} of {self._pairs}", "characters") if self._counts_text else ("", "")
            self._report(Event("scores", UNIT, self._done, self._total, note=note, measure=measure))
