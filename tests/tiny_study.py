"""A whole study of a few seconds' members: every kind of arm over the data of `tests.tiny_job`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.evaluation.task_folders import write_task
from tests.tiny_job import write_job

ARMS: list[dict[str, Any]] = [
    {"name": "bls", "title": "batch-level shuffling", "set": {"bags.ratios": [1.0]}},
    {"name": "task-merge", "members": "task_type"},
    {"name": "cluster-merge", "members": "cluster", "clusters": {"count": 2, "steps": 2, "examples": 16}},
    {"name": "boom", "set": {"bags.ratios": [0.5, 1.0]}},
    {"name": "soup", "set": {"bags.ratios": [0.5, 1.0], "merge.method": "linear"}},
    {"name": "best", "product": "best_member", "set": {"bags.ratios": [0.5, 1.0]}},
    {
        "name": "trunk",
        "trunk": True,
        "set": {"bags.ratios": [0.5, 1.0], "training": {"decay": "wsd", "decay_ratio": 0.2, "warmup_updates": 2}},
    },
]
CLAIMS = [
    {"text": "BOOM beats batch-level shuffling", "arm": "boom", "versus": ["bls"]},
    {"text": "A soup is no worse", "arm": "soup", "versus": ["boom"], "says": "no_worse", "where": ["all"]},
]


def write_study(
    folder: Path, arms: list[dict[str, Any]] | None = None, seeds: tuple[int, ...] = (0, 1), **changes: Any
) -> Path:
    """Write all inputs below ``folder`` and return the configuration's path; ``changes`` replace top-level sections."""
    own = ARMS if arms is None else arms
    names = {arm["name"] for arm in own}
    claims = [claim for claim in CLAIMS if {claim["arm"], *claim["versus"]} <= names]
    study = {"seeds": list(seeds), "arms": own, "baseline": own[0]["name"], "claims": claims}
    job = write_job(folder, rows=96, study=study, **changes)
    config = yaml.safe_load(job.read_text(encoding="utf-8"))
    chosen_by = write_task(folder / "tasks" / "classification", "classification")
    config["evaluation"].setdefault("selection", [chosen_by.model_dump(mode="json")])
    job.write_text(yaml.safe_dump(config), encoding="utf-8")
    return job
