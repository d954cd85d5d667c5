"""One arm against another: over seeds, over tasks and on every task; the numbers that claims are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from boom_ray.config.study import Where
from boom_ray.evaluation.compare import compare, verdict_over_tasks
from boom_ray.evaluation.comparison import Aggregate, Comparison, Verdict
from boom_ray.evaluation.scores import GROUPS
from boom_ray.evaluation.significance import SPREAD, Interval, Vector, sign_flip, wilcoxon
from boom_ray.hashing import stream_key
from boom_ray.studies.estimates import LEVEL, Estimate, difference_of, shared, tasks_where
from boom_ray.studies.results import StudyResult

RESAMPLES = 10_000
"""Of every bootstrap and permutation test."""


class TaskTests(NamedTuple):
    """Whether a mean over tasks lies above a bound, the tasks being a sample of their kind.

    Attributes:
        interval: bootstrap interval of the mean; None for one task.
        wilcoxon: p-value of the signed-rank test, two-sided.
        permutation: p-value of the sign-flip test, two-sided.
        verdict: better, or worse, than the bound only where the interval and both tests say so.
    """

    interval: Interval | None
    wilcoxon: float
    permutation: float
    verdict: Verdict


@dataclass(frozen=True)
class Contrast:
    """An arm less another on some tasks; 1 is a perfect score.

    Attributes:
        where: on which tasks.
        first: mean of the other, over seeds and tasks.
        second: mean of the arm.
        seeds: the difference of the means over tasks, seed by seed.
        tasks: task to the difference of the means over seeds, by name.
        aggregate: the evaluation stage's comparison over these tasks, with its verdicts on single tasks.
        identical: the two have the same score on every task with every seed.
    """

    where: Where
    first: float
    second: float
    seeds: Estimate
    tasks: Mapping[str, float]
    aggregate: Aggregate
    identical: bool

    @property
    def too_few_tasks(self) -> bool:
        """Not even differences that all have the same sign would give a p-value below the level."""
        return 2.0 ** (1 - len(self.tasks)) >= 1 - LEVEL

    def over_tasks(self, margin: float = 0.0) -> TaskTests:
        """Whether the difference lies above ``-margin``: tests as of `compare`, of the differences plus the margin.

        The interval is that of the difference itself.

        Args:
            margin: 0 or more.
        """
        one = self.aggregate
        if margin == 0:
            return TaskTests(one.interval, one.wilcoxon, one.permutation, one.verdict)
        values: Vector = np.array(list(self.tasks.values()), dtype=np.float64) + margin
        values[np.abs(values) < SPREAD] = 0.0  # at the bound but for rounding, which must not look like a direction
        ranked = wilcoxon(values)
        permuted = sign_flip([values], RESAMPLES, stream_key(0, "study", "tasks", self.where))
        shifted = one.interval and (one.interval[0] + margin, one.interval[1] + margin)
        verdict = verdict_over_tasks(float(values.mean()), shifted, max(ranked, permuted), 1 - LEVEL)
        return TaskTests(one.interval, ranked, permuted, verdict)


class Contrasts:
    """All comparisons of a study's arms, each made when it is first asked for: tests over many queries take time."""

    def __init__(self, study: StudyResult) -> None:
        """No comparison is made as yet."""
        self.study = study
        self._found: dict[tuple[str, str], dict[Where, Contrast]] = {}

    def obstacle(self, arm: str, against: str) -> str:
        """Why two arms cannot be compared; empty if they can."""
        if arm == against:
            return f"{arm} is not compared with itself"
        for name in (arm, against):
            if not self.study.arms.get(name):
                return f"{name} has no result"
        seeds, tasks = shared(self.study, arm, against)
        if not seeds:
            return f"{arm} and {against} have no seed in common"
        return "" if tasks else f"{arm} and {against} have no task in common"

    def between(self, arm: str, against: str) -> Mapping[Where, Contrast]:
        """``arm`` less ``against`` on every set of tasks that they share some of; empty if there is an `obstacle`.

        Only the seeds that both were made with count, and the tasks that all these runs have.

        Raises:
            EvaluationError: a task differs in type, group or metric, or a value is no score.
        """
        if self.obstacle(arm, against):
            return {}
        if (arm, against) not in self._found:
            self._found[arm, against] = self._compare(arm, against)
        return self._found[arm, against]

    def _compare(self, arm: str, against: str) -> dict[Where, Contrast]:
        seeds, tasks = shared(self.study, arm, against)
        first, second = ([self.study.arms[name][seed].scores for seed in seeds] for name in (against, arm))
        comparison = compare(first, second, (against, arm), resamples=RESAMPLES, level=LEVEL)
        aggregates: dict[Where, Aggregate] = {"all": comparison.overall}
        aggregates |= {group: comparison.groups[group] for group in GROUPS if group in comparison.groups}
        found: dict[Where, Contrast] = {}
        for where, aggregate in aggregates.items():
            own = tasks_where(self.study, where, tasks)
            seed_by_seed = difference_of(self.study, arm, against, own)
            assert seed_by_seed is not None  # there are shared seeds and tasks
            found[where] = Contrast(
                where=where,
                first=aggregate.mean_task.first,
                second=aggregate.mean_task.second,
                seeds=seed_by_seed,
                tasks=_differences(comparison, own),
                aggregate=aggregate,
                identical=all(
                    one[task].value == other[task].value
                    for one, other in zip(first, second, strict=True)
                    for task in own
                ),
            )
        return found


def _differences(comparison: Comparison, tasks: tuple[str, ...]) -> dict[str, float]:
    """By task, in the order of names: it must not move the random numbers."""
    return {one.task: one.difference for one in sorted(comparison.tasks, key=lambda one: one.task) if one.task in tasks}
