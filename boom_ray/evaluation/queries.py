"""Main scores of single queries, which mteb computes and throws away: what paired tests need."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "queries.json"


def watch_queries(task: Any) -> Callable[[], dict[str, float]]:
    """Have a retrieval or reranking task keep the main metric of every query while mteb evaluates it.

    Args:
        task: an mteb task that was not evaluated yet.

    Returns:
        A function that gives ``subset/query`` (``split:subset/query`` where several splits are evaluated) to the main
        metric; empty for tasks and metrics that have no values per query.
    """
    found: dict[str, float] = {}
    inner = getattr(task, "task_specific_scores", None)
    if inner is None:
        return lambda: found
    name, _, depth = str(task.metadata.main_score).rpartition("_at_")
    column = f"{name}_cut_{depth}"
    has_splits = len(task.eval_splits) > 1

    def keep(scores: dict[str, dict[str, float]], *arguments: Any, hf_split: str, hf_subset: str, **named: Any) -> Any:
        place = f"{hf_split}:{hf_subset}" if has_splits else hf_subset
        for query, values in scores.items():
            if column in values:
                found[f"{place}/{query}"] = float(values[column])
        return inner(scores, *arguments, hf_split=hf_split, hf_subset=hf_subset, **named)

    task.task_specific_scores = keep
    return lambda: found


def write_queries(folder: Path, values: dict[str, float]) -> None:
    """Write them beside mteb's result file, if there are any."""
    if values:
        (folder / FILE).write_text(json.dumps(values, sort_keys=True), encoding="utf-8")


def read_queries(folder: Path) -> dict[str, float] | None:
    """What `write_queries` wrote; None if that is nothing."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
