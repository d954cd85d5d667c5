"""Sweeps made up for tests: configurations, and trials whose objectives follow from their points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boom_ray.config import SweepConfig
from boom_ray.config.load import validate
from boom_ray.sweeps.trials import Answer, Point, Trial

WEIGHTS: dict[str, Any] = {"merge.weights": {"simplex": {}}}
TASKS = ("retrieval", "sts")


def sweep(
    space: Mapping[str, Any], ratios: Sequence[float] = (0.8, 1.0), names: Sequence[str] = ("score",), **more: Any
):
    """A sweep over a space, with two selection tasks and as many bags as ratios."""
    tasks = [{"name": name, "path": f"/tasks/{name}", "type": name} for name in TASKS]
    return validate(
        SweepConfig,
        {
            "name": "planted",
            "corpus": {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "retrieval"}]},
            "bags": {"ratios": list(ratios)},
            "evaluation": {"selection": tasks},
            "sweep": {"space": dict(space), "objectives": [{"name": name} for name in names], **more},
        },
        "test",
    )


def answer(*objectives: float, names: Sequence[str] = ("score",), seconds: float = 1.0) -> Answer:
    """An answer with these objectives; the scores of both tasks lie a tenth around the first."""
    scores = {task: objectives[0] + shift for task, shift in zip(TASKS, (-0.1, 0.1), strict=True)}
    return Answer(scores, dict(zip(names, objectives, strict=True)), seconds=seconds)


def trial(
    number: int, *objectives: float, point: Point | None = None, names: Sequence[str] = ("score",), seconds: float = 1.0
) -> Trial:
    """A finished trial of one rung."""
    return Trial(number, point or {}, (answer(*objectives, names=names, seconds=seconds),), "finished")


def failed(number: int, error: str, *before: Answer, point: Point | None = None) -> Trial:
    """A trial that failed after some good answers."""
    return Trial(number, point or {}, (*before, Answer(error=error, seconds=0.5)), "failed")
