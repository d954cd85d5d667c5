"""A whole BOOM job of a few seconds' work: JSONL files, a tiny base, local evaluation folders, one YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.evaluation.task_folders import sentences, write_jsonl, write_task
from tests.tiny_model import make_tiny_model

WORDS = ["red", "green", "blue", "black", "white", "big", "small", "old", "new", "good", "bad", "fast", "slow"]


def write_job(folder: Path, rows: int = 240, **changes: Any) -> Path:
    """Write all inputs below ``folder`` and return the configuration's path; ``changes`` replace top-level sections."""
    texts = [text for text, _ in sentences(rows)]
    pairs = [
        {"query": f"{WORDS[n % 13]} {text}", "pos": [f"{text} {WORDS[(n + 5) % 13]}"], "neg": [texts[(n + 7) % rows]]}
        for n, text in enumerate(texts)
    ]
    labelled = [{"text": f"{WORDS[n % 13]} {text}", "label": topic} for n, (text, topic) in enumerate(sentences(rows))]
    data = {
        "pairs": write_jsonl(folder / "data" / "pairs.jsonl", pairs),
        "topics": write_jsonl(folder / "data" / "topics.jsonl", labelled),
    }
    tasks = {kind: write_task(folder / "tasks" / kind, kind) for kind in ("retrieval", "sts")}
    config = {
        "name": "tiny",
        "store": str(folder / "store"),
        "corpus": {
            "max_query_tokens": 64,  # the base has positions for 128
            "max_passage_tokens": 64,
            "datasets": [
                {"name": "pairs", "source": str(data["pairs"]), "task_type": "retrieval"},
                {"name": "topics", "source": str(data["topics"]), "task_type": "classification", "label_negatives": 2},
            ],
        },
        "model": {"base": str(make_tiny_model(folder / "base"))},
        "bags": {"ratios": [0.5, 1.0]},
        "training": {
            "batch_size": 8,
            "negatives": 2,
            "learning_rate": 1e-3,
            "precision": "float32",
            "checkpoint_every": 5,
            "log_every": 2,
            "resources": {"memory_gb_per_worker": 0.5},
        },
        "evaluation": {
            "in_domain": [tasks["retrieval"].model_dump(mode="json")],
            "out_of_domain": [tasks["sts"].model_dump(mode="json")],
        },
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
