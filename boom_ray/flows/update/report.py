"""What an update brought, what it took and what it cost, as rows; pure functions of scores and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from boom_ray.config.update import FULL
from boom_ray.evaluation.compare import Comparison, compare
from boom_ray.evaluation.comparison import Scores
from boom_ray.evaluation.report import Row
from boom_ray.flows.update.plan import NEW, NEW_ELSEWHERE, names_of

Groups: TypeAlias = Mapping[str, Sequence[str]]
"""Group of tasks to their names."""
Values: TypeAlias = Mapping[str, Mapping[str, float]]
"""Model to task to score, 1 is perfect."""
BEFORE, AFTER = "before", "after"
OLD_TASKS, NEW_TASKS = "old tasks", "new tasks"
BROUGHT = (NEW, NEW_ELSEWHERE)


@dataclass(frozen=True)
class Cost:
    """What one way to a model costs.

    Attributes:
        what: the way, or a part of it.
        examples: seen in training.
        runs: the same in passes over everything, old and new.
        seconds: measured; None if it was not run.
    """

    what: str
    examples: int
    runs: float
    seconds: float | None


def task_rows(values: Values, groups: Groups) -> list[Row]:
    """One row per task: the models' scores and what ``after`` is better by, in percent; None where a score is missing.

    The difference to ``before`` is a gain on new tasks and, below zero, forgetting on old ones.
    """
    return [
        {"group": group, "task": task, **_row({model: own.get(task) for model, own in values.items()})}
        for group, task in names_of(groups)
    ]


def group_rows(values: Values, groups: Groups) -> list[Row]:
    """One row per group with means over its tasks; as `task_rows`, and how many tasks there are."""
    return [
        {
            **{"group": group, "tasks": str(len(tasks))},
            **_row({model: _mean([own.get(task) for task in tasks]) for model, own in values.items()}),
        }
        for group, tasks in groups.items()
    ]


def _row(scores: Mapping[str, float | None]) -> Row:
    found: Row = {model: _percent(value) for model, value in scores.items()}
    for other in (BEFORE, FULL):
        if other in scores:
            first, second = scores[other], scores.get(AFTER)
            gain = None if first is None or second is None else second - first
            found[f"{AFTER} - {other}"] = _percent(gain)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def changes(values: Values, groups: Groups, other: str = BEFORE) -> list[tuple[str, str, float]]:
    """(task, group, score after less that of ``other``) of all tasks that both have, for pictures."""
    first, second = values.get(other, {}), values.get(AFTER, {})
    return [
        (task, group, second[task] - first[task])
        for group, task in names_of(groups)
        if task in first and task in second
    ]


def gains(values: Values, groups: Groups) -> dict[str, float]:
    """Means as metrics: ``gain`` on new tasks, ``forgetting`` by group of old ones (positive: worse than before)."""
    found: dict[str, float] = {}
    for group in groups:
        differences = [change for _, own, change in changes(values, groups) if own == group]
        if differences:
            mean = sum(differences) / len(differences)
            name = group.replace(" ", "_")
            found |= {f"gain/{name}": mean} if group in BROUGHT else {f"forgetting/{name}": 0.0 - mean}
    return found


def comparisons(scores: Mapping[str, Scores], groups: Groups, seed: int) -> dict[str, Comparison]:
    """Paired comparisons of ``after`` with ``before`` and with full retraining, on old and on new tasks apart.

    Args:
        scores: model to task to score.
        groups: the tasks.
        seed: of the tests.

    Returns:
        By a name that says what is compared; those without a common task are left out.
    """
    parts = {OLD_TASKS: [task for group, task in names_of(groups) if group not in BROUGHT]}
    parts[NEW_TASKS] = [task for group, task in names_of(groups) if group in BROUGHT]
    found = {}
    for other in (BEFORE, FULL):
        for part, tasks in parts.items():
            first, second = ({task: own[task] for task in tasks if task in own} for own in _pair(scores, other))
            if first.keys() & second.keys():
                found[f"{AFTER} and {other}, {part}"] = compare(first, second, (other, AFTER), seed)
    return found


def _pair(scores: Mapping[str, Scores], other: str) -> tuple[Scores, Scores]:
    return scores.get(other, {}), scores.get(AFTER, {})


def costs(update: Cost, merge_seconds: float, full: Cost, before: Cost) -> list[Row]:
    """The table of what everything costs.

    Args:
        update: training of the update member.
        merge_seconds: what the merge took.
        full: full retraining, measured or computed.
        before: training of all members of the model before, whenever that was.
    """
    total = None if update.seconds is None else update.seconds + merge_seconds
    rows = [
        (update, ""),
        (Cost("merge", 0, 0.0, merge_seconds), "trains nothing"),
        (Cost("the update", update.examples, update.runs, total), "member and merge"),
        (full, "not run; computed" if full.seconds is None else "for comparison"),
        (before, "spent before, not again"),
    ]
    return [
        {
            "what": one.what,
            "examples seen": f"{one.examples:,}",
            "full runs": round(one.runs, 4),
            "seconds": None if one.seconds is None else round(one.seconds, 1),
            "note": note,
        }
        for one, note in rows
    ]


def cost_sentence(update: Cost, full: Cost) -> str:
    """The cost in a sentence."""
    share = f", {100 * update.examples / full.examples:.0f} % of full retraining" if full.examples else ""
    told = f"{full.runs:.2f}" + ("; it was not run" if full.seconds is None else "")
    return (
        f"The update saw {update.examples:,} examples, {update.runs:.2f} full runs{share} ({told}). "
        f"A full run is one pass over all data, old and new."
    )
