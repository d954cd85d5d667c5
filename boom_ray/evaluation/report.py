"""Scores as tables: a row per model, a column per task, and the means by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from boom_ray.evaluation.scores import GROUPS, Group, Score

Row: TypeAlias = dict[str, str | float | None]


def group_tasks(scores: Sequence[Score]) -> dict[Group, list[str]]:
    """The tasks of each group, in the order in which they first appear."""
    return {group: list(dict.fromkeys(score.task for score in scores if score.group == group)) for group in GROUPS}


def means(scores: Sequence[Score]) -> dict[str, dict[Group, float | None]]:
    """Mean over the tasks of each group, by model.

    None where the group has no tasks, and where the model lacks a score that another model has: a mean over fewer
    tasks could not be compared.
    """
    values = _values(scores)
    tasks = group_tasks(scores)
    return {model: {group: _mean(found, tasks[group]) for group in GROUPS} for model, found in values.items()}


def gains(scores: Sequence[Score], model: str, over: str) -> dict[str, float]:
    """Score of ``model`` minus that of ``over``, on every task that both have.

    Raises:
        KeyError: one of the two has no scores.
    """
    values = _values(scores)
    return {task: value - values[over][task] for task, value in values[model].items() if task in values[over]}


def table(scores: Sequence[Score]) -> list[Row]:
    """One row per model: its name under ``model``, its score under each task, its means under each group's name."""
    values, averages, tasks = _values(scores), means(scores), group_tasks(scores)
    rows: list[Row] = []
    for model, found in values.items():
        row: Row = {"model": model}
        for group in GROUPS:
            row |= {task: found.get(task) for task in tasks[group]}
        rows.append(row | {group: averages[model][group] for group in GROUPS if tasks[group]})
    return rows


def markdown(rows: Sequence[Row], digits: int = 4) -> str:
    """The table as GitHub Markdown, which is also readable as plain text; the best of each column is bold."""
    if not rows:
        return ""
    columns = list(rows[0])
    cells = [columns, *([_cell(row, column, rows, digits) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = [
        _line([_pad(text, width, place) for place, (text, width) in enumerate(zip(line, widths, strict=True))])
        for line in cells
    ]
    rule = _line(["-" * width if place == 0 else "-" * (width - 1) + ":" for place, width in enumerate(widths)])
    return "\n".join([lines[0], rule, *lines[1:]])


def _values(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        found.setdefault(score.model, {})[score.task] = score.value
    return found


def _mean(found: dict[str, float], tasks: Sequence[str]) -> float | None:
    if not tasks or any(task not in found for task in tasks):
        return None
    return sum(found[task] for task in tasks) / len(tasks)


def _cell(row: Row, column: str, rows: Sequence[Row], digits: int) -> str:
    value = row[column]
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    best = max(other for line in rows if isinstance(other := line[column], float))
    text = f"{value:.{digits}f}"
    return f"**{text}**" if len(rows) > 1 and value == best else text


def _pad(text: str, width: int, place: int) -> str:
    return text.ljust(width) if place == 0 else text.rjust(width)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
