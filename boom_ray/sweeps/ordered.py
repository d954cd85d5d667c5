"""The order of a search: trials are suggested in batches, and the searcher hears of a batch when all of it has ended.

Which trial ends first, on how many actors and when, is thereby nothing that the searcher could learn from: the same
seed gives the same trials. It also makes a resumed search a repetition, since finished trials are answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boom_ray.runtime  # noqa: F401  isort: skip  (sets Ray's environment before Ray is imported)

from ray.tune.result import TRAINING_ITERATION
from ray.tune.search import Searcher

from boom_ray.config import SearchConfig
from boom_ray.errors import EvaluationError
from boom_ray.sweeps.mailbox import NUMBER, POINT, RESOURCE, Batch, Closed, Ended, Letter, metric
from boom_ray.sweeps.patience import Patience
from boom_ray.sweeps.trials import Point, Status

RESTARTS = 3


@dataclass
class Course:
    """What Tune has told about a trial.

    Attributes:
        number: of the trial.
        point: what was suggested.
        results: objectives by rung, from the first on.
        status: how it ended; None while it runs.
        is_refused: its last answer is an error, so it will fail.
        deaths: how often its process died.
    """

    number: int
    point: Point
    results: list[dict[str, float]] = field(default_factory=list)
    status: Status | None = None
    is_refused: bool = False
    deaths: int = 0


class OrderedSearcher(Searcher):  # type: ignore[misc]  # Ray Tune is untyped here
    """Suggests in batches and passes results on in the order of suggestion.

    A trial whose process died without being refused is suggested again as it was: that is no fault of its point.

    Args:
        inner: the searcher that learns; it knows a trial by its number as a text, and its suggestions hold the point
            under the key ``point``.
        settings: batch, limits, rungs and objectives.
        post: hears of every batch before Tune does, and of the end of every trial.

    Attributes:
        ended: why nothing more is suggested: ``trials``, ``hours``, ``patience`` or ``points``; empty before that.
        fault: what the inner searcher raised.
    """

    def __init__(self, inner: Searcher, settings: SearchConfig, post: Callable[[Letter], Any]) -> None:
        """Nothing is suggested; the time of ``settings.hours`` begins."""
        self._metrics = [metric(objective.name) for objective in settings.objectives]
        super().__init__(metric=self._metrics, mode=["max"] * len(self._metrics))
        self._inner, self._settings, self._post = inner, settings, post
        self._patience = Patience()
        self._count = 0
        self._batch: dict[int, Course] = {}
        self._ready: list[Course] = []
        self._running: dict[str, Course] = {}
        self._deadline = time.monotonic() + (settings.hours or float("inf")) * 3600
        self._is_stopped = False
        self.ended = ""
        self.fault: Exception | None = None

    def stop(self) -> None:
        """Suggest nothing more; another thread may call it."""
        self._is_stopped = True

    def refuse(self, number: int) -> None:
        """The running trial of that number is about to fail; another thread may call it."""
        self._batch[number].is_refused = True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial of the batch, or of the next batch once all trials of this one have ended; else None."""
        if not (self._ready or self._running or self.ended or self._is_stopped):
            self._next_batch()
        if self._is_stopped or (self.ended and not (self._ready or self._running)):
            finished: str = Searcher.FINISHED
            return finished
        if not self._ready:
            return None
        course = self._running[trial_id] = self._ready.pop(0)
        return {NUMBER: course.number, POINT: course.point}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Remember the objectives of a rung."""
        self._take(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Remember how a trial ended; Tune's scheduler decided that one which did not fail stops here."""
        course = self._running.pop(trial_id)
        if error and not course.is_refused:
            self._restart(course)
            return
        if result:
            self._take(course, result)
        is_top = len(course.results) == len(self._settings.rungs)
        course.status = "failed" if error else "finished" if is_top else "stopped"
        self._post(Ended(course.number, course.status))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing is saved: a search is resumed by repeating it."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into a file that nobody reads; the one behind this may not be picklable."""
        return {}

    def _take(self, course: Course, result: Mapping[str, Any]) -> None:
        """The result of the next rung; Tune tells the last one twice, and a restarted trial tells all of them again."""
        if result.get(RESOURCE) == self._settings.reduction ** len(course.results):
            course.results.append({name: float(result[name]) for name in self._metrics})

    def _restart(self, course: Course) -> None:
        if self._is_stopped:
            return
        course.deaths += 1
        self._ready.append(course)
        if course.deaths > RESTARTS:
            self._fail(
                EvaluationError(
                    f"The process of trial {course.number} died {course.deaths} times. Look for the reason in Ray's "
                    f"logs (a machine without free memory, for one), then run the same command again to continue."
                )
            )

    def _fail(self, error: Exception) -> None:
        """End the search; trials that still run wait for answers that will not come."""
        self.fault = error
        self.stop()
        self._post(Closed())

    def _next_batch(self) -> None:
        """Suggest a batch, or say why there will be none."""
        try:
            self._tell()
            self.ended = self._reason()
            if not self.ended:
                self._suggest_batch()
        except Exception as error:  # Tune would only say that its searcher failed
            self._fail(error)

    def _reason(self) -> str:
        settings = self._settings
        if self._count >= settings.trials:
            return "trials"
        if settings.patience is not None and self._patience.since >= settings.patience:
            return "patience"
        return "hours" if time.monotonic() >= self._deadline else ""

    def _suggest_batch(self) -> None:
        for number in range(self._count, min(self._count + self._settings.batch, self._settings.trials)):
            suggestion = self._inner.suggest(str(number))
            if suggestion is None or suggestion == Searcher.FINISHED:
                self.ended = "points"
                break
            self._batch[number] = Course(number, suggestion[POINT])
        self._ready = list(self._batch.values())
        self._count += len(self._ready)
        if self._batch:
            self._post(Batch({number: course.point for number, course in self._batch.items()}))

    def _tell(self) -> None:
        """Tell the inner searcher and the patience of the batch that has ended.

        A stopped trial has no value that compares with those of the last rung; the searcher hears of its results as
        intermediate ones (optuna calls such a trial pruned).
        """
        for number, course in self._batch.items():
            for rung, values in enumerate(course.results):
                self._inner.on_trial_result(str(number), {**values, TRAINING_ITERATION: rung + 1})
            done = course.results[-1] if course.status == "finished" else None
            self._inner.on_trial_complete(str(number), done, error=course.status == "failed")
            self._patience.hear([tuple(values.values()) for values in course.results])
        self._batch = {}
