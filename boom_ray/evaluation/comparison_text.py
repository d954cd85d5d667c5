"""A comparison of two models as table, text and JSON; see `boom_ray.evaluation.compare`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from boom_ray.evaluation.comparison import Aggregate, Comparison, TaskComparison
from boom_ray.evaluation.report import Row

GROUP_NAMES = {"in_domain": "in domain", "out_of_domain": "out of domain"}


def rows(comparison: Comparison) -> list[Row]:
    """One row per task, all with the same columns, for CSV files and tables; None where something is not known."""
    first, second = comparison.names
    return [
        {
            "task": task.task,
            "type": task.type,
            "group": task.group,
            "metric": task.metric,
            f"score {first}": task.first,
            f"score {second}": task.second,
            "difference": task.difference,
            "interval_low": task.interval[0] if task.interval else None,
            "interval_high": task.interval[1] if task.interval else None,
            "p": task.p,
            "p_holm": task.p_holm,
            "queries": task.queries,
            "unpaired": task.unpaired,
            "tested": task.tested,
            "verdict": task.verdict,
            f"std {first}": task.first_std,
            f"std {second}": task.second_std,
        }
        for task in comparison.tasks
    ]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All of the comparison as JSON values, with the names of its fields."""
    return dict(json.loads(json.dumps(dataclasses.asdict(comparison), allow_nan=False)))


def summary(comparison: Comparison) -> str:
    """A few sentences with the evidence: means with intervals and tests, tasks, seeds, and what was left out.

    Points are hundredths of a score.
    """
    lines = [_over_tasks(comparison, comparison.overall, "")]
    if len(comparison.groups) > 1:
        lines += [_over_tasks(comparison, one, GROUP_NAMES[name]) for name, one in comparison.groups.items()]
    lines.append(_types(comparison.overall))
    lines += [_single_tasks(comparison, tested) for tested in (True, False)]
    lines += [_seeds(comparison), *_left_out(comparison)]
    return "\n".join(line for line in lines if line)


def _over_tasks(comparison: Comparison, one: Aggregate, where: str) -> str:
    line = f"{where.capitalize()}, {_who(comparison, one)}" if where else _who(comparison, one)
    if one.interval is None:
        return f"{line} on the one task; whether that would hold on others, one task cannot tell."
    low, high = (100 * end for end in one.interval)
    verdict = "not beyond noise" if one.verdict == "tie" else "beyond noise"
    if 2.0 ** (1 - one.tasks) >= 1 - comparison.level:  # the p-value when all differences have one sign
        verdict += f"; {one.tasks} tasks are too few for these tests to show any difference"
    return (
        f"{line} in the mean over {one.tasks} tasks ({100 * comparison.level:g} % interval {low:.2f} to {high:.2f}; "
        f"Wilcoxon {p_text(one.wilcoxon)}, sign-flip {p_text(one.permutation)}): {verdict}."
    )


def _who(comparison: Comparison, one: Aggregate) -> str:
    """Which model is better by how much."""
    first, second = comparison.names
    points = 100 * one.mean_task.difference
    if abs(points) < 0.005:
        return f"{second} and {first} are even"
    return f"{second} is {abs(points):.2f} points {'better' if points > 0 else 'worse'} than {first}"


def _types(one: Aggregate) -> str:
    if len(one.types) < 2:
        return ""
    gains = ", ".join(f"{name} {100 * pair.difference:+.2f}" for name, pair in one.types.items())
    return f"By task type, in points: {gains}; in the mean over types {100 * one.mean_type.difference:+.2f}."


def _single_tasks(comparison: Comparison, tested: bool) -> str:
    tasks = [task for task in comparison.tasks if task.tested == tested]
    if not tasks:
        return ""
    how = (
        f"by a permutation test over queries, Holm-corrected to {1 - comparison.level:.2g}"
        if tested
        else f"without values per query, by the score alone (ties up to {100 * comparison.tie:g} points)"
    )
    counts = ", ".join(
        f"{word} on {len(found)}{_named(found)}"
        for verdict, word in (("better", "better"), ("worse", "worse"), ("tie", "neither"))
        if (found := [task for task in tasks if task.verdict == verdict])
    )
    return f"{_tasks(len(tasks))} {how}: {comparison.names[1]} is {counts}."


def _named(tasks: Sequence[TaskComparison]) -> str:
    """The names of a few tasks, in brackets."""
    return f" ({', '.join(task.task for task in tasks)})" if len(tasks) <= 3 else ""


def _tasks(count: int) -> str:
    return f"{count} task{'s' if count != 1 else ''}"


def _seeds(comparison: Comparison) -> str:
    runs = comparison.runs
    if max(len(runs.first), len(runs.second)) < 2:
        return "One run of each model: how much its seed matters is not known."
    parts = [
        f"{name} {len(means)} run{'s' if len(means) > 1 else ''}"
        + (f" with a standard deviation of {100 * std:.2f} points" if std is not None else "")
        for name, means, std in zip(
            comparison.names, (runs.first, runs.second), (runs.first_std, runs.second_std), strict=True
        )
    ]
    test = f"; Welch's t-test between the runs' means {p_text(runs.welch)}" if runs.welch is not None else ""
    return f"Seeds: {', '.join(parts)}{test}."


def _left_out(comparison: Comparison) -> list[str]:
    first, second = comparison.names
    reasons = {
        f"only {first} has them": comparison.only_first,
        f"only {second} has them": comparison.only_second,
        "not all runs have them": comparison.incomplete,
    }
    return [f"Left out, because {reason}: {', '.join(tasks)}." for reason, tasks in reasons.items() if tasks]


def p_text(value: float) -> str:
    """A p-value with two digits, very small ones as a bound."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"
