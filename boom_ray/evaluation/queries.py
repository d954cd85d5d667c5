"""Main scores of single queries, which mteb computes and throws away: what paired tests need."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

FILE = "queries.json"
COLUMNS = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
"""Mteb's name of a metric to what pytrec_eval, which computes it for every query, calls it."""
RECIPROCAL_RANK = "mrr"
Judged: TypeAlias = Mapping[str, Mapping[str, float]]
"""Values of documents or metrics, by query."""


def watch_queries(task: Any) -> Callable[[], dict[str, float]]:
    """Have a retrieval or reranking task keep the main metric of every query while mteb evaluates it.

    Args:
        task: an mteb task that was not evaluated yet.

    Returns:
        A function that gives ``subset/query`` (``split:subset/query`` where several splits are evaluated) to the main
        metric; empty for tasks and metrics that have no values per query of which mteb's score is the mean.
    """
    found: dict[str, float] = {}
    inner = getattr(task, "task_specific_scores", None)
    if inner is None:
        return lambda: found
    metric = str(task.metadata.main_score)
    has_splits = len(task.eval_splits) > 1

    def keep(scores: Judged, qrels: Judged, results: Judged, hf_split: str, hf_subset: str) -> Any:
        place = f"{hf_split}:{hf_subset}" if has_splits else hf_subset
        own = inner(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)
        if metric not in own:  # else the task has its own way to compute it
            values = _values(metric, scores, qrels, {} if task.skip_first_result else results)
            found.update({f"{place}/{query}": value for query, value in values.items()})
        return own

    task.task_specific_scores = keep
    return lambda: found


def _values(metric: str, scores: Judged, qrels: Judged, results: Judged) -> dict[str, float]:
    """The metric of every query.

    Args:
        metric: as mteb calls it.
        scores: what pytrec_eval computed, by query and its name of a metric.
        qrels: relevances of documents by query.
        results: scores of the documents found by query, if those are what mteb judged.
    """
    name, _, depth = metric.rpartition("_at_")
    if name == RECIPROCAL_RANK:
        from mteb._evaluators.retrieval_metrics import mrr  # which pytrec_eval does not compute to a depth

        return {
            query: float(mrr(qrels, {query: found}, [int(depth)])[f"MRR@{depth}"][0])  # type: ignore[arg-type]  # plain dicts do
            for query, found in results.items()
        }
    column = f"{COLUMNS.get(name)}_{depth}"
    return {query: float(values[column]) for query, values in scores.items() if column in values}


def write_queries(folder: Path, values: dict[str, float]) -> None:
    """Write them beside mteb's result file, if there are any."""
    if values:
        (folder / FILE).write_text(json.dumps(values, sort_keys=True), encoding="utf-8")


def read_queries(folder: Path) -> dict[str, float] | None:
    """What `write_queries` wrote; None if that is nothing."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
