"""Tasks of mteb with several subsets (languages): each has an artifact of its own, so none is computed twice.

The artifact of a subset is that of the same task with ``subsets: [NAME]``, and the score of all of them is the mean, as
mteb has it (`TaskResult.get_score`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from mteb.abstasks import AbsTask
from mteb.results import TaskResult

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.queries import read_queries, write_queries
from boom_ray.store import Artifact, Draft, Store, artifact_key

SEPARATE = frozenset({"Retrieval", "Reranking", "STS", "PairClassification", "BitextMining", "Classification"})
"""Types whose subsets do not change one another's scores; those of clustering share one stream of random numbers."""
MOST = 256
"""A task with more subsets (up to 41,412) has one artifact."""
Examined: TypeAlias = tuple[TaskResult, dict[str, Any], dict[str, float]]
"""Mteb's result, the figures that the artifact keeps, and the main metric of every query."""


def separate_subsets(task: AbsTask) -> tuple[str, ...]:
    """The subsets of a task that are kept one by one; none if the task has one, or if they belong together."""
    names = tuple(sorted(task.hf_subsets))
    is_aggregate = bool(getattr(task, "tasks", ()))
    fits = 1 < len(names) <= MOST and not is_aggregate and task.metadata.type in SEPARATE
    return names if fits else ()


def keep(store: Store, task: TaskConfig, spec: dict[str, Any], inputs: dict[str, Any], found: Examined) -> Artifact:
    """The artifact of a score, with mteb's result file."""
    result, figures, queries = found

    def build(draft: Draft) -> None:
        result.to_disk(draft.path / f"{task.name}.json")
        write_queries(draft.path, queries)
        draft.figures |= figures

    return store.materialize("scores", spec, inputs, build)


def score_subsets(
    store: Store,
    task: TaskConfig,
    spec: dict[str, Any],
    inputs: dict[str, Any],
    subsets: Sequence[str],
    examine: Callable[[TaskConfig], Examined],
) -> Examined:
    """Evaluate the subsets that the store lacks, together; keep each of them; and put all together.

    Args:
        store: takes an artifact of kind ``scores`` per subset.
        task: the task.
        spec: of its score.
        inputs: likewise.
        subsets: what `separate_subsets` gave.
        examine: evaluates a task.

    Raises:
        EvaluationError: a subset has no score.
    """
    specs = {name: spec | {"subsets": [name]} for name in subsets}
    parts = {name: store.get("scores", artifact_key("scores", own, inputs)) for name, own in specs.items()}
    missing = tuple(name for name, part in parts.items() if part is None)
    if missing:
        examined = examine(task.model_copy(update={"subsets": missing}))
        for name in missing:
            parts[name] = keep(store, task, specs[name], inputs, _part(examined, name, 1 / len(missing)))
    return _together(task, [part for part in parts.values() if part is not None])


def _part(found: Examined, subset: str, share: float) -> Examined:
    """What was found for one subset; it took its share of the time."""
    result, figures, queries = found
    scores = {split: [one for one in own if one["hf_subset"] == subset] for split, own in result.scores.items()}
    if not all(scores.values()):
        raise EvaluationError(f"mteb gave no result for the subset {subset} of {result.task_name}.")
    own = result.model_copy(update={"scores": scores, "evaluation_time": (result.evaluation_time or 0.0) * share})
    seconds = round(figures["seconds"] * share, 3)
    mine = {key: value for key, value in queries.items() if _subset_of(key) == subset}
    return own, figures | {"score": float(own.get_score()), "seconds": seconds}, mine


def _subset_of(query: str) -> str:
    """Of ``subset/query`` or ``split:subset/query``."""
    return query.partition("/")[0].rpartition(":")[2]


def _together(task: TaskConfig, parts: Sequence[Artifact]) -> Examined:
    """The mean over subsets, and all that is known of them."""
    folders = [part.local() for part in parts]
    results = [TaskResult.from_disk(folder / f"{task.name}.json") for folder in folders]
    queries: dict[str, float] = {}
    prompts: dict[str, str] = {}
    for part, folder in zip(parts, folders, strict=True):
        queries |= read_queries(folder) or {}
        prompts |= part.figures["prompts"]
    figures: Mapping[str, Any] = parts[0].figures
    own = {
        "score": float(np.mean([part.figures["score"] for part in parts])),
        "seconds": round(sum(part.figures["seconds"] for part in parts), 3),
        "prompts": prompts,
    }
    return functools.reduce(TaskResult.merge, results), {**figures, **own}, queries
