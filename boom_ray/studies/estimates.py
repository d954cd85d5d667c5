"""Means over seeds with their spread, of arms and of differences between arms; seeds are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from boom_ray.config.study import Where
from boom_ray.evaluation.comparison import Scores
from boom_ray.evaluation.comparison_text import GROUP_NAMES
from boom_ray.evaluation.scores import GROUPS
from boom_ray.evaluation.significance import SPREAD, Interval, deviation
from boom_ray.studies.results import StudyResult

LEVEL = 0.95
"""Confidence of all intervals."""
BASE = "untrained base"
"""The base model in tables; no arm can be called so."""
WHERES: Mapping[Where, str] = {**{group: GROUP_NAMES[group] for group in GROUPS}, "all": "on all tasks"}
"""Sets of tasks and their names in texts."""


@dataclass(frozen=True)
class Estimate:
    """A number that was measured once per seed.

    Attributes:
        by_seed: seed to the number; empty for the base model, which has none.
        mean: over seeds.
        std: sample standard deviation over seeds; None with one.
        interval: Student's interval of the mean over seeds. None with one seed, and where all seeds give the same
            number: then they did not repeat the measurement, and how much it varies is not known.
    """

    by_seed: Mapping[int, float]
    mean: float
    std: float | None
    interval: Interval | None

    @classmethod
    def of(cls, by_seed: Mapping[int, float], level: float = LEVEL) -> Estimate:
        """Estimate the mean.

        Args:
            by_seed: seed to the number; one or more.
            level: confidence of the interval.
        """
        values = list(by_seed.values())
        return cls(dict(by_seed), float(np.mean(values)), deviation(values), student_interval(values, level))


def student_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Two-sided interval of the mean of normal values with unknown variance.

    Source: Student, "The probable error of a mean", 1908.

    Args:
        values: repeated measurements.
        level: confidence, between 0 and 1.

    Returns:
        Low and high end; None for fewer than two values and for values without any spread.
    """
    if len(values) < 2 or np.ptp(values) < SPREAD:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean - half, mean + half


class Shared(NamedTuple):
    """What two arms can be compared on.

    Attributes:
        seeds: that both were made with, in order.
        tasks: that all runs with these seeds have, in the study's order.
    """

    seeds: tuple[int, ...]
    tasks: tuple[str, ...]


def shared(study: StudyResult, one: str, other: str) -> Shared:
    """Seeds and tasks that two arms share."""
    first, second = study.arms.get(one, {}), study.arms.get(other, {})
    seeds = tuple(seed for seed in first if seed in second)
    runs = [arm[seed].scores for seed in seeds for arm in (first, second)]
    return Shared(seeds, tuple(task for task in study.tasks if runs and all(task in scores for scores in runs)))


def tasks_where(study: StudyResult, where: Where, tasks: Sequence[str] | None = None) -> tuple[str, ...]:
    """The tasks of a set, of all tasks of the study or of some."""
    chosen = study.tasks if tasks is None else tasks
    return tuple(task for task in chosen if where in {"all", study.tasks[task].group})


def wheres(study: StudyResult) -> tuple[Where, ...]:
    """The sets that have tasks; all tasks only where there are two groups of them."""
    groups = [group for group in GROUPS if tasks_where(study, group)]
    return (*groups, "all") if len(groups) > 1 else tuple(groups)


def level_of(study: StudyResult, arm: str, tasks: Sequence[str]) -> Estimate | None:
    """An arm's mean score over tasks; 1 is perfect.

    Returns:
        None if there are no tasks, the arm was never made, or one of its runs lacks one of the tasks: a mean over
        fewer tasks could not be compared.
    """
    runs = study.arms[arm]
    if not runs or not tasks or any(task not in run.scores for run in runs.values() for task in tasks):
        return None
    return Estimate.of({seed: _mean(run.scores, tasks) for seed, run in runs.items()})


def levels(study: StudyResult, tasks: Sequence[str]) -> dict[str, Estimate | None]:
    """Mean scores over tasks by name, of the base model, if it was evaluated, and of all arms; see `level_of`."""
    found: dict[str, Estimate | None] = {}
    if study.base is not None:
        known = tasks and all(task in study.base for task in tasks)
        found[BASE] = Estimate({}, _mean(study.base, tasks), None, None) if known else None
    return found | {arm: level_of(study, arm, tasks) for arm in study.arms}


def difference_of(study: StudyResult, arm: str, against: str, tasks: Sequence[str]) -> Estimate | None:
    """An arm's mean score over tasks less another's, seed by seed.

    Args:
        study: the study.
        arm: what is new.
        against: what it is compared with.
        tasks: of these, those count that all runs of both arms with shared seeds have.

    Returns:
        None if they share no seed or none of the tasks.
    """
    common = shared(study, arm, against)
    chosen = [task for task in tasks if task in common.tasks]
    if not chosen:
        return None
    new, old = study.arms[arm], study.arms[against]
    return Estimate.of(
        {seed: _mean(new[seed].scores, chosen) - _mean(old[seed].scores, chosen) for seed in common.seeds}
    )


def count_text(number: float, word: str) -> str:
    """A number of things, e.g. ``1 seed`` or ``0.5 points``."""
    return f"{number:g} {word}{'s' if number != 1 else ''}"


def _mean(scores: Scores, tasks: Sequence[str]) -> float:
    return float(np.mean([scores[task].value for task in tasks]))
