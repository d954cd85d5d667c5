"""Is one model better than another beyond noise? Paired, over the queries of a task, over tasks and over runs.

Pure functions on plain data, without Ray, mteb, files or network. Every difference is the second model's score less
the first's: the first is what is compared with, the second what is new. Means are those of mteb's leaderboard
(mteb/benchmarks/_create_table.py): "Mean (Task)" is the mean over tasks, "Mean (TaskType)" the mean over the task
types' means, so that ten retrieval tasks do not outweigh two of clustering.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from scipy import stats

from boom_ray.errors import EvaluationError
from boom_ray.evaluation.comparison import (
    Aggregate,
    Comparison,
    Pair,
    RunMeans,
    Runs,
    Scores,
    TaskComparison,
    TaskScore,
    Verdict,
)
from boom_ray.evaluation.comparison_text import rows, summary, to_json
from boom_ray.evaluation.report import Row
from boom_ray.evaluation.scores import GROUPS
from boom_ray.evaluation.significance import (
    Interval,
    Vector,
    bootstrap_interval,
    deviation,
    holm,
    sign_flip,
    welch,
    wilcoxon,
)
from boom_ray.hashing import stream_key

__all__ = ["Comparison", "TaskScore", "compare", "ranks", "rows", "summary", "to_json"]

MISMATCH = 0.005
"""A task's score and the mean of its queries may differ by this much: mteb rounds."""
Key: TypeAlias = Callable[..., int]
"""The key of a named stream of random numbers."""


def compare(
    first: Runs,
    second: Runs,
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
    tie: float = 0.0005,
) -> Comparison:
    """Compare two models on the tasks that all their runs have.

    The result depends on neither the order of tasks and queries nor, for one task, on which others there are, except
    for Holm's correction. Swapping the models negates every difference and nothing else changes.

    Args:
        first: what is compared with: one run's scores by task, or a sequence of runs (seeds).
        second: what is new, likewise.
        names: of both models.
        seed: of the random numbers.
        resamples: of every bootstrap and permutation test.
        level: confidence of intervals; a p-value below ``1 - level`` is significant.
        tie: a task that cannot be tested is a tie where the difference is at most this.

    Raises:
        EvaluationError: nothing in common; a task that differs in type, group or metric; values that are no scores
            or not those of the main metric; or an option that makes no sense.
    """
    runs = (_runs(first, names[0]), _runs(second, names[1]))
    complete = tuple([task for task in model[0] if all(task in run for run in model)] for model in runs)
    common = [task for task in complete[0] if task in complete[1]]
    anywhere = tuple(set().union(*model) for model in runs)
    _check_options(names, resamples, level, tie)
    if not common:
        has = (", ".join(sorted(tasks)[:5]) or "none" for tasks in anywhere)
        raise EvaluationError(
            f"{names[0]} and {names[1]} have no task in common: {' against '.join(has)}. Evaluate both on the same."
        )
    for task in common:
        scores = [run[task] for model in runs for run in model]
        _check_task(task, scores)
        _check_queries(task, scores)

    def key(*parts: str) -> int:
        return stream_key(seed, "compare", *parts)

    tasks = _with_verdicts([_task(task, *runs, key, resamples, level) for task in common], resamples, 1 - level, tie)
    groups = {group: [task for task in tasks if task.group == group] for group in GROUPS}
    return Comparison(
        names=names,
        level=level,
        tie=tie,
        seed=seed,
        resamples=resamples,
        tasks=tuple(tasks),
        overall=_aggregate(tasks, key("overall"), resamples, level),
        groups={group: _aggregate(found, key(group), resamples, level) for group, found in groups.items() if found},
        runs=_run_means(*runs, common),
        only_first=tuple(sorted(anywhere[0] - anywhere[1])),
        only_second=tuple(sorted(anywhere[1] - anywhere[0])),
        incomplete=tuple(sorted((anywhere[0] & anywhere[1]) - set(common))),
    )


def ranks(models: Mapping[str, Runs]) -> list[Row]:
    """Table of many models, best first, counted as by mteb's leaderboard.

    Args:
        models: one run's scores by task, or a sequence of runs, by the model's name.

    Returns:
        One row per model: ``model``; ``borda_rank``, by the points of all tasks (number of models less its rank on
        the task, none for a task it lacks); ``mean_rank`` over tasks, where 1 is best and equal scores share the mean
        of their ranks; ``mean_task``; ``mean_type``; the mean of each group and of each type. A mean over tasks that
        the model lacks some of is None, because it could not be compared.

    Raises:
        EvaluationError: no model has a task, or see `compare`.
    """
    runs = {name: _runs(scores, name) for name, scores in models.items()}
    found: dict[str, list[TaskScore]] = {}
    for run in (run for model in runs.values() for run in model):
        for task, score in run.items():
            found.setdefault(task, []).append(score)
    if not found:
        raise EvaluationError("No model has a score on any task, so there is nothing to rank.")
    for task, scores in found.items():
        _check_task(task, scores)
    values = np.array([[_value(model, task) for task in found] for model in runs.values()], dtype=np.float64)
    places = stats.rankdata(-values, axis=0, nan_policy="omit")
    borda = stats.rankdata(np.nansum(places - len(runs), axis=1), method="min")
    labels = [(scores[0].group, scores[0].type) for scores in found.values()]
    table = [
        _ranked(name, int(rank), float(place.mean()), _means(row, labels))
        for name, rank, place, row in zip(runs, borda, places, values, strict=True)
    ]
    return [row for _, row in sorted(zip(borda, table, strict=True), key=lambda item: int(item[0]))]


def _ranked(name: str, borda: int, place: float, means: Row) -> Row:
    return {"model": name, "borda_rank": borda, "mean_rank": _known(place), **means}


def _means(values: Vector, labels: Sequence[tuple[str, str]]) -> Row:
    """Means of one model's values over tasks with (group, type), NaN where it has no score."""
    groups, types = (np.array(column) for column in zip(*labels, strict=True))
    by_group = {group: values[groups == group].mean() for group in GROUPS if group in groups}
    by_type = {name: values[types == name].mean() for name in sorted(set(types.tolist()))}
    means = {"mean_task": values.mean(), "mean_type": np.mean(list(by_type.values())), **by_group, **by_type}
    return {name: _known(value) for name, value in means.items()}


def _runs(scores: Runs, name: str) -> tuple[Scores, ...]:
    runs = (scores,) if isinstance(scores, Mapping) else tuple(scores)
    if not runs:
        raise EvaluationError(f"{name} has no runs; give the scores of at least one.")
    return runs


def _value(runs: Sequence[Scores], task: str) -> float:
    """Mean over runs, NaN if one of them lacks the task."""
    return float(np.mean([run[task].value if task in run else math.nan for run in runs]))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _pair(first: float, second: float) -> Pair:
    return Pair(first, second, second - first)


def _check_options(names: tuple[str, str], resamples: int, level: float, tie: float) -> None:
    if names[0] == names[1]:
        raise EvaluationError(f"Both models are called {names[0]}; give them different names.")
    if not 0 < level < 1:
        raise EvaluationError(f"level is {level:g}; it must lie between 0 and 1, like 0.95.")
    if resamples < 1:
        raise EvaluationError(f"resamples is {resamples}; it must be at least 1, better 10000.")
    if not tie >= 0:
        raise EvaluationError(f"tie is {tie:g}; it must be 0 or more.")


def _check_task(task: str, scores: Sequence[TaskScore]) -> None:
    """Check that all scores of one task are scores, and of the same thing."""
    for field in ("type", "group", "metric"):
        kinds = sorted({getattr(score, field) for score in scores})
        if len(kinds) > 1:
            raise EvaluationError(
                f"{task} has the {field} {' in one evaluation and '.join(kinds)} in another, so its scores cannot be "
                f"compared; evaluate all models with the same configuration and version of mteb."
            )
    for score in scores:
        if not -1 <= score.value <= 1:  # also NaN
            raise EvaluationError(f"{task} has the score {score.value:g}; scores lie between -1 and 1, 1 is perfect.")


def _check_queries(task: str, scores: Sequence[TaskScore]) -> None:
    """Check that values of queries are those of which the score is the mean; only tests look at them."""
    for score in scores:
        if score.queries:
            _check_mean(task, score)


def _check_mean(task: str, score: TaskScore) -> None:
    keys, values = list(score.queries or {}), np.array(list((score.queries or {}).values()), dtype=np.float64)
    if not np.isfinite(values).all():
        key = keys[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise EvaluationError(f"{task}: the value of query {key} is not a finite number; leave such queries out.")
    mean = np.mean([stratum.mean() for stratum in _strata(keys, values)])
    if abs(mean - score.value) > MISMATCH:
        raise EvaluationError(
            f"{task} has the score {score.value:.4f}, but its {len(keys)} queries average {mean:.4f}. Give values of "
            f"its main metric ({score.metric or 'unnamed'}) under subset/query id, or no queries."
        )


def _strata(keys: Sequence[str], values: Vector) -> list[Vector]:
    """Values by subset: what stands before the first slash of the key."""
    subsets = [key.partition("/")[0] if "/" in key else "" for key in keys]
    _, places = np.unique(subsets, return_inverse=True)
    order = np.argsort(places, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(places))[:-1])


def _task(
    task: str, first: Sequence[Scores], second: Sequence[Scores], key: Key, resamples: int, level: float
) -> TaskComparison:
    """One task, without a verdict as yet."""
    about = first[0][task]
    pair = _pair(_value(first, task), _value(second, task))
    strata, unpaired = _differences([[run[task].queries or {} for run in runs] for runs in (first, second)])
    tested = any(len(stratum) > 1 for stratum in strata)
    return TaskComparison(
        task=task,
        type=about.type,
        group=about.group,
        metric=about.metric,
        first=pair.first,
        second=pair.second,
        difference=pair.difference,
        first_std=deviation([run[task].value for run in first]),
        second_std=deviation([run[task].value for run in second]),
        queries=sum(map(len, strata)),
        unpaired=unpaired,
        interval=bootstrap_interval(strata, level, resamples, key("bootstrap", task)) if tested else None,
        p=sign_flip(strata, resamples, key("signs", task)) if tested else None,
        p_holm=None,
        tested=tested,
        verdict="tie",
    )


def _differences(queries: Sequence[Sequence[Mapping[str, float]]]) -> tuple[list[Vector], int]:
    """Paired differences by subset over the queries that all runs of both models have, and how many others there are.

    Args:
        queries: values by query, one mapping per run, of the first and of the second model.
    """
    every = [values.keys() for model in queries for values in model]
    keys = sorted(set(every[0]).intersection(*every[1:]))  # sorted: the order must not move the random numbers
    unpaired = len(set().union(*every)) - len(keys)
    if not keys:
        return [], unpaired
    first, second = (np.mean([[values[key] for key in keys] for values in model], axis=0) for model in queries)
    return _strata(keys, second - first), unpaired


def _with_verdicts(tasks: Sequence[TaskComparison], resamples: int, alpha: float, tie: float) -> list[TaskComparison]:
    """The tasks with Holm's correction over those that are tested, and what follows from it."""
    p_values = {task.task: task.p for task in tasks if task.p is not None}
    if len(p_values) >= alpha * (resamples + 1):
        raise EvaluationError(
            f"No p-value of {resamples} resamples is small enough to be significant among {len(p_values)} tasks at "
            f"level {1 - alpha:g}; set resamples to at least {math.ceil(len(p_values) / alpha)}."
        )
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    found = [dataclasses.replace(task, p_holm=adjusted.get(task.task)) for task in tasks]
    return [dataclasses.replace(task, verdict=_verdict(task, alpha, tie)) for task in found]


def _verdict(task: TaskComparison, alpha: float, tie: float) -> Verdict:
    if task.p_holm is None or task.interval is None:
        return _direction(task.difference) if abs(task.difference) > tie else "tie"
    # over queries that not all runs have, the difference may be the other way round: that proves nothing
    opposed = sum(task.interval) * task.difference <= 0
    return "tie" if task.p_holm >= alpha or opposed else _direction(task.difference)


def _direction(difference: float) -> Verdict:
    return "better" if difference > 0 else "worse"


def _aggregate(tasks: Sequence[TaskComparison], key: int, resamples: int, level: float) -> Aggregate:
    by_type = {name: _mean([task for task in tasks if task.type == name]) for name in sorted({t.type for t in tasks})}
    overall, differences = _mean(tasks), np.array([task.difference for task in sorted(tasks, key=lambda t: t.task)])
    interval = bootstrap_interval([differences], level, resamples, key)
    ranked, permuted = wilcoxon(differences), sign_flip([differences], resamples, key)
    verdicts = [task.verdict for task in tasks]
    return Aggregate(
        tasks=len(tasks),
        mean_task=overall,
        mean_type=_pair(
            *(float(np.mean([getattr(pair, of) for pair in by_type.values()])) for of in ("first", "second"))
        ),
        types=by_type,
        interval=interval,
        wilcoxon=ranked,
        permutation=permuted,
        wins=verdicts.count("better"),
        ties=verdicts.count("tie"),
        losses=verdicts.count("worse"),
        verdict=verdict_over_tasks(overall.difference, interval, max(ranked, permuted), 1 - level),
    )


def verdict_over_tasks(difference: float, interval: Interval | None, p: float, alpha: float) -> Verdict:
    """The interval alone is too narrow for few tasks, and the tests alone do not say how large the difference is."""
    if interval is None or interval[0] <= 0 <= interval[1] or p >= alpha:
        return "tie"
    return _direction(difference)


def _mean(tasks: Sequence[TaskComparison]) -> Pair:
    return _pair(float(np.mean([task.first for task in tasks])), float(np.mean([task.second for task in tasks])))


def _run_means(first: Sequence[Scores], second: Sequence[Scores], common: Sequence[str]) -> RunMeans:
    means = [tuple(float(np.mean([run[task].value for task in common])) for run in runs) for runs in (first, second)]
    return RunMeans(means[0], means[1], deviation(means[0]), deviation(means[1]), welch(means[0], means[1]))
