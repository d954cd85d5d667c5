"""Lineages without the artifacts that they name."""

from __future__ import annotations

from typing import Any

from boom_ray.config import RunConfig
from boom_ray.config.load import validate
from boom_ray.flows.lineage import Ancestor, Layer, Lineage

TASK = {"name": "t-old", "path": "/tasks/old", "type": "sts"}
AWAY = {"name": "t-away", "path": "/tasks/away", "type": "pair"}


def run_config(**changes: Any) -> RunConfig:
    """A run on two datasets with a task in each group."""
    data: dict[str, Any] = {
        "name": "old",
        "corpus": {
            "max_query_tokens": 64,
            "datasets": [
                {"name": "a", "source": "a.jsonl", "task_type": "retrieval"},
                {"name": "b", "source": "b.jsonl", "task_type": "sts"},
            ],
        },
        "training": {"batch_size": 8, "learning_rate": 1e-3},
        "evaluation": {"in_domain": [TASK], "out_of_domain": [AWAY]},
    }
    return validate(RunConfig, {**data, **changes}, "test")


def lineage(config: RunConfig | None = None, **changes: Any) -> Lineage:
    """The lineage of such a run: members of 80 % and of all of 100 examples."""
    found: dict[str, Any] = {
        "config": config or run_config(),
        "base": "0" * 32,
        "corpus": "1" * 32,
        "layers": (Layer("old", "1" * 32, f"bag/{'2' * 32}", {"a": 70, "b": 30}),),
        "members": (
            Ancestor("bag-80", "3" * 32, "4" * 32, "5" * 32, 80, 8.0),
            Ancestor("bag-100", "6" * 32, "7" * 32, "8" * 32, 100, 10.0),
        ),
        "merged": "9" * 32,
        "recipe": {"method": "multislerp"},
    }
    name = found["config"].name
    return Lineage(**{"name": name, **found, **changes})
