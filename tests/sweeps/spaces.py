"""Small sweeps, and a searcher that draws at random and remembers what it was asked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from boom_ray.config import SweepConfig
from boom_ray.config.load import validate

DATASETS = [{"name": name, "source": f"{name}.jsonl", "task_type": "retrieval"} for name in ("a", "b.c")]
RUN: dict[str, Any] = {
    "name": "s",
    "corpus": {"datasets": DATASETS},
    "evaluation": {"selection": [{"name": "dev", "path": "dev", "type": "retrieval"}]},
}
HALVES = {"members": [{"name": "half", "ratio": 0.5}, {"name": "rest", "complement_of": "half"}]}
BAGS = {"choice": {"two": {"ratios": [0.8, 1.0]}, "three": {"ratios": [0.6, 0.6, 0.6]}, "halves": HALVES}}
MIXED: dict[str, Any] = {
    "bags": {
        "choice": {
            "plain": {"members": [{"name": "x", "ratio": 0.5}, {"name": "y", "ratio": 0.8}]},
            "rest": {"members": [{"name": "x", "ratio": 0.5}, {"name": "y", "complement_of": "x"}]},
        }
    },
    "bags.members.0.replacement": {"choice": ["none", "poisson"]},
}
"""Every value can be used; only rest with poisson cannot, for what a bootstrap leaves out is no bag."""
METHODS = {"choice": ["multislerp", "task_arithmetic", "ties"]}


def sweep(space: dict[str, Any], searcher: str = "tpe", **run: Any) -> SweepConfig:
    """A sweep over a space; ``run`` replaces sections of the run."""
    return validate(SweepConfig, RUN | run | {"sweep": {"space": space, "searcher": searcher}}, "s.yaml")


class Random:
    """Uniform draws; ``ranges`` remembers for every name which options or range it stood for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.ranges: dict[str, tuple[Any, ...]] = {}

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        self._remember(name, tuple(options))
        return self._random.choice(list(options))

    def uniform(self, name: str, low: float, high: float, log: bool = False) -> float:
        self._remember(name, (low, high, log))
        return self._random.uniform(low, high)

    def integer(self, name: str, low: int, high: int) -> int:
        self._remember(name, (low, high))
        return self._random.randint(low, high)

    def _remember(self, name: str, what: tuple[Any, ...]) -> None:
        assert self.ranges.setdefault(name, what) == what, f"{name} does not always mean the same"
