"""A study as tables of plain numbers, for CSV files and for other programs; 1 is a perfect score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from boom_ray.config.study import Where
from boom_ray.evaluation.comparison import Scores
from boom_ray.evaluation.report import Row
from boom_ray.evaluation.scores import GROUPS
from boom_ray.evaluation.significance import Interval, holm
from boom_ray.studies.contrasts import Contrast, Contrasts, TaskTests
from boom_ray.studies.estimates import BASE, Estimate, difference_of, levels, tasks_where, wheres
from boom_ray.studies.results import Cost, StudyResult
from boom_ray.studies.verdicts import Verdict


def score_rows(study: StudyResult) -> list[Row]:
    """Every score: ``arm``, ``seed`` (None for the base model), ``task``, ``type``, ``group``, ``score``."""
    rows = [] if study.base is None else _scores(BASE, None, study.base)
    for arm, runs in study.arms.items():
        for seed, run in runs.items():
            rows += _scores(arm, seed, run.scores)
    return rows


def _scores(arm: str, seed: int | None, scores: Scores) -> list[Row]:
    return [
        {"arm": arm, "seed": seed, "task": one.task, "type": one.type, "group": one.group, "score": one.value}
        for one in scores.values()
    ]


def overview_rows(study: StudyResult) -> list[Row]:
    """A row per arm: means over the tasks of every group, differences to the baseline, and costs.

    The columns: ``arm``, ``title``, ``seeds`` (how many it was made with); per set of tasks ``WHERE``, ``WHERE_std``,
    ``WHERE_low`` and ``WHERE_high`` (ends of the interval over seeds), and the same four of ``WHERE_difference``, to
    the baseline and paired by seed; then ``full_runs``, ``shared_runs``, ``seconds`` and ``members``, means over seeds.
    """
    means = {where: levels(study, tasks_where(study, where)) for where in wheres(study)}
    rows: list[Row] = []
    for arm in [*([BASE] if study.base is not None else []), *study.arms]:
        row: Row = {"arm": arm, "title": study.titles.get(arm, ""), "seeds": len(study.arms.get(arm, {}))}
        for where in wheres(study):
            row |= _columns(where, means[where][arm])
            row |= _columns(f"{where}_difference", _to_baseline(study, arm, tasks_where(study, where)))
        cost = mean_cost(study, arm)
        row |= {
            "full_runs": cost.runs if cost else None,
            "shared_runs": cost.shared_runs if cost else None,
            "seconds": cost.seconds if cost else None,
            "members": cost.members if cost else None,
        }
        rows.append(row)
    return rows


def mean_cost(study: StudyResult, arm: str) -> Cost | None:
    """An arm's cost, in the mean over the seeds that it was made with; None if there are none."""
    costs = [run.cost for run in study.arms.get(arm, {}).values()]
    if not costs:
        return None
    return Cost(
        runs=sum(cost.runs for cost in costs) / len(costs),
        seconds=sum(cost.seconds for cost in costs) / len(costs),
        members=max(cost.members for cost in costs),
        shared_runs=sum(cost.shared_runs for cost in costs) / len(costs),
    )


def _to_baseline(study: StudyResult, arm: str, tasks: Sequence[str]) -> Estimate | None:
    if arm in {BASE, study.baseline}:
        return None
    return difference_of(study, arm, study.baseline, tasks)


def _columns(name: str, found: Estimate | None) -> Row:
    """A number with its spread, in four columns."""
    low, high = _ends(found.interval if found else None)
    return {
        name: found.mean if found else None,
        f"{name}_std": found.std if found else None,
        f"{name}_low": low,
        f"{name}_high": high,
    }


def type_rows(study: StudyResult) -> list[Row]:
    """A row per group, task type and arm.

    The columns: ``arm``, ``group``, ``type``, ``tasks`` (how many), ``mean`` over them and seeds, and over seeds its
    standard deviation ``mean_std`` and the ends of its interval, ``mean_low`` and ``mean_high``.
    """
    rows: list[Row] = []
    for group in GROUPS:
        for kind, tasks in types(study, group).items():
            for arm, found in levels(study, tasks).items():
                rows.append({"arm": arm, "group": group, "type": kind, "tasks": len(tasks), **_columns("mean", found)})
    return rows


def types(study: StudyResult, group: str) -> Mapping[str, Sequence[str]]:
    """The tasks of a group by their type, types in alphabetical order."""
    own = [score for score in study.tasks.values() if score.group == group]
    return {kind: [one.task for one in own if one.type == kind] for kind in sorted({one.type for one in own})}


def task_rows(study: StudyResult) -> list[Row]:
    """A row per task and arm: ``arm``, ``task``, ``type``, ``group``, and the four columns of `type_rows` on means."""
    rows: list[Row] = []
    for group in GROUPS:
        for task in tasks_where(study, group):
            about: Row = {"task": task, "type": study.tasks[task].type, "group": group}
            rows += [{"arm": arm, **about, **_columns("mean", found)} for arm, found in levels(study, [task]).items()]
    return rows


class Tested(NamedTuple):
    """An arm's tests against the baseline on one set of tasks.

    Attributes:
        arm: its name.
        contrast: the arm less the baseline.
        tests: over tasks.
        wilcoxon: p-value with Holm's correction for the number of arms.
        permutation: likewise.
    """

    arm: str
    contrast: Contrast
    tests: TaskTests
    wilcoxon: float
    permutation: float


def tested(study: StudyResult, contrasts: Contrasts) -> dict[Where, list[Tested]]:
    """Tests of all arms that can be compared with the baseline, by set of tasks.

    Args:
        study: the study.
        contrasts: of the same study.
    """
    found: dict[Where, list[Tested]] = {}
    for where in wheres(study):
        every = {arm: contrasts.between(arm, study.baseline).get(where) for arm in study.arms}
        known = {arm: one for arm, one in every.items() if one is not None}
        tests = [one.over_tasks() for one in known.values()]
        ranked, permuted = holm([one.wilcoxon for one in tests]), holm([one.permutation for one in tests])
        found[where] = [Tested(*one) for one in zip(known, known.values(), tests, ranked, permuted, strict=True)]
    return found


def significance_rows(study: StudyResult, contrasts: Contrasts) -> list[Row]:
    """A row per set of tasks and arm that can be compared with the baseline: tests over tasks.

    The columns: ``where``, ``arm``, ``tasks`` and ``seeds`` (how many are compared), ``difference``, ``low`` and
    ``high`` (ends of the bootstrap interval over tasks), p-values ``wilcoxon`` and ``permutation``, each also with
    Holm's correction for the number of arms (``_holm``), and the tasks that are ``better``, ``even`` and ``worse``.

    Args:
        study: the study.
        contrasts: of the same study.
    """
    rows: list[Row] = []
    for where, found in tested(study, contrasts).items():
        for arm, one, tests, ranked, permuted in found:
            low, high = _ends(tests.interval)
            row: Row = {"where": where, "arm": arm, "tasks": len(one.tasks), "seeds": len(one.seeds.by_seed)}
            row |= {"difference": one.seeds.mean, "low": low, "high": high}
            row |= {"wilcoxon": tests.wilcoxon, "wilcoxon_holm": ranked}
            row |= {"permutation": tests.permutation, "permutation_holm": permuted}
            counts = one.aggregate
            rows.append(row | {"better": counts.wins, "even": counts.ties, "worse": counts.losses})
    return rows


def claim_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """A row per comparison of every claim: the claim, its ``status``, and the numbers of the comparison.

    ``part_status`` and ``reason`` are the comparison's; ``seeds_low`` and ``seeds_high`` the ends of the interval over
    seeds, ``tasks_low`` and ``tasks_high`` over tasks; the p-values are of the claim's bound.
    """
    rows: list[Row] = []
    for verdict in verdicts:
        claim = verdict.claim
        for part in verdict.parts:
            one, tests = part.contrast, part.tests
            seeds, tasks = _ends(one.seeds.interval if one else None), _ends(tests.interval if tests else None)
            rows.append(
                {
                    "claim": claim.text,
                    "status": verdict.status,
                    "arm": claim.arm,
                    "says": claim.says,
                    "versus": part.versus,
                    "where": part.where,
                    "part_status": part.status,
                    "difference": one.seeds.mean if one else None,
                    "seeds_low": seeds[0],
                    "seeds_high": seeds[1],
                    "tasks_low": tasks[0],
                    "tasks_high": tasks[1],
                    "wilcoxon": tests.wilcoxon if tests else None,
                    "permutation": tests.permutation if tests else None,
                    "reason": part.reason,
                }
            )
    return rows


def _ends(interval: Interval | None) -> Interval | tuple[None, None]:
    return interval or (None, None)
