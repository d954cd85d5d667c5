"""Scores of a model folder that exists for a moment: what members in training are evaluated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boom_ray.config import EvaluationConfig, ModelConfig, TaskConfig
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.scores import ModelRef
from boom_ray.store import Store


@dataclass(frozen=True)
class FolderScorer:
    """Evaluates a folder on some tasks, in the process that calls it; nothing is kept.

    Attributes:
        store: for resolving names; no artifact is written.
        evaluation: seed, precision, cores and GPUs.
        tasks: what to evaluate on, every path given.
        model: templates.
    """

    store: Store
    evaluation: EvaluationConfig
    tasks: tuple[TaskConfig, ...]
    model: ModelConfig

    def __call__(self, folder: Path) -> dict[str, float]:
        """Task to main score, and ``mean`` over them.

        Raises:
            EvaluationError: a task's data is faulty.
            ModelError: the folder cannot be loaded.
        """
        evaluator = Evaluator(self.store, self.evaluation)
        ref = ModelRef.of("member", folder, self.model)
        scores = {task.name: float(evaluator.measure(ref, task)[1]["score"]) for task in self.tasks}
        return scores | {"mean": float(np.mean(list(scores.values())))}


def chosen_tasks(evaluation: EvaluationConfig, names: Sequence[str]) -> tuple[TaskConfig, ...]:
    """The named tasks; without names, those to choose by, else those in domain."""
    if not names:
        return evaluation.selection or evaluation.in_domain
    known = {task.name: task for task in evaluation.all_tasks}
    return tuple(known[name] for name in names)
