"""What a sweep makes as large as it can: figures of the scores on the selection tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boom_ray.config import ObjectiveConfig


def objectives(
    scores: Mapping[str, float], types: Mapping[str, str], wanted: Sequence[ObjectiveConfig]
) -> dict[str, float]:
    """Name of each objective to its value; higher is better.

    Args:
        scores: task to main score, of all selection tasks.
        types: task to task type, for ``mean_by_type``: the mean over the task types' means, as mteb's leaderboard has.
        wanted: the objectives.

    Raises:
        KeyError: an objective's task has no score.
    """
    found = {}
    for objective in wanted:
        own = {task: scores[task] for task in objective.tasks or scores}
        if objective.metric == "worst":
            found[objective.name] = min(own.values())
        elif objective.metric == "mean":
            found[objective.name] = sum(own.values()) / len(own)
        else:
            groups: dict[str, list[float]] = {}
            for task, value in own.items():
                groups.setdefault(types[task], []).append(value)
            means = [sum(values) / len(values) for values in groups.values()]
            found[objective.name] = sum(means) / len(means)
    return found
