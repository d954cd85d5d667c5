"""Scores in a model card, as the Hugging Face hub and mteb's leaderboard read them (``model-index``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from boom_ray.evaluation.comparison import TaskScore
from boom_ray.evaluation.scores import ModelRef
from boom_ray.model.folder import read_json

PROMPTS = "config_sentence_transformers.json"


def stored_prompts(folder: Path) -> dict[str, str]:
    """The prompts that a model's folder stores, by name."""
    path = folder / PROMPTS
    found = read_json(path).get("prompts") if path.exists() else None
    return {name: text for name, text in (found or {}).items() if text is not None}


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
