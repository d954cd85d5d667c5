"""Scores in a model card, as the Hugging Face hub and mteb's leaderboard read them (``model-index``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from boom_ray.evaluation.comparison import TaskScore
from boom_ray.evaluation.scores import ModelRef


def with_scores(folder: Path, model: ModelRef, scores: Mapping[str, TaskScore]) -> str:
    """The model's card with its scores as ``model-index``; what the card says otherwise stays.

    Args:
        folder: of the model; its README.md, if there is one.
        model: name and revision.
        scores: by task.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    card = ModelCard(text if text.startswith("---\n") else f"---\n{{}}\n---\n{text or f'# {model.name}'}")
    data: ModelCardData = card.data
    data.model_name = data.model_name or model.name
    data.eval_results = [
        EvalResult(
            task_type=score.type,
            dataset_type=f"mteb/{task}",
            dataset_name=f"MTEB {task}",
            metric_type=score.metric or "main_score",
            metric_value=round(100 * score.value, 4),
            dataset_revision=None,
            verified=False,
        )
        for task, score in sorted(scores.items())
    ]
    return str(card)
