"""Updates of the tiny job: more JSONL files and a YAML each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.evaluation.task_folders import sentences, write_jsonl, write_task
from tests.tiny_job import WORDS

STEP = 1000
"""New texts begin at a number of their own, so that no update repeats another's."""


def new_pairs(number: int, rows: int) -> list[dict[str, Any]]:
    """Pairs that only update ``number`` has."""
    texts = [text for text, _ in sentences(STEP * number + rows)[STEP * number :]]
    return [
        {"query": f"{WORDS[(n + number) % 13]} {text}", "pos": [f"{WORDS[n % 13]} so {text}"], "neg": [texts[n - 1]]}
        for n, text in enumerate(texts)
    ]


def write_update(
    folder: Path, name: str, current: str, number: int = 1, repeated: int = 0, fields: Any = None, **changes: Any
) -> Path:
    """Write an update with one new dataset, ``data-NUMBER`` of 64 pairs, and one new task, ``pairs-NUMBER``.

    Args:
        folder: of the tiny job.
        name: of the update.
        current: what it updates.
        number: which data.
        repeated: so many pairs of the data before are in it, too.
        fields: more fields of the dataset.
        changes: replace top-level sections, or are laid over them.
    """
    rows = [*new_pairs(number, 64), *new_pairs(number - 1, 64)[:repeated]]
    source = write_jsonl(folder / "data" / f"data-{number}.jsonl", rows)
    task = write_task(folder / "tasks" / f"pairs-{number}", "pair")
    dataset = {"name": f"data-{number}", "source": str(source), "task_type": "retrieval", **(fields or {})}
    config: dict[str, Any] = {
        "name": name,
        "store": str(folder / "store"),
        "current": current,
        "corpus": {"datasets": [dataset]},
        "evaluation": {"in_domain": [task.model_dump(mode="json")]},
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
