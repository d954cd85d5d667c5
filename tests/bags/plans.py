"""Bags of numbered examples, and plans of them in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan
from boom_ray.bags.schedules.batches import Supply
from boom_ray.hashing import U64, mix64

TASKS = {"a": "retrieval", "b": "sts", "c": "retrieval", "d": "clustering"}
sizes = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 60), min_size=1)


def ids_of(sizes: dict[str, int]) -> dict[str, U64]:
    """Dataset to the ids of its examples, different in every dataset."""
    return {name: mix64(np.arange(size, dtype=np.uint64), ord(name)) for name, size in sizes.items()}


def supply(sizes: dict[str, int], batch: int, seed: int = 0) -> Supply:
    """A bag of all examples."""
    return Supply({name: np.arange(size) for name, size in sizes.items()}, ids_of(sizes), batch, seed)


def steps(plan: Plan) -> list[tuple[str, int, list[int]]]:
    """Dataset, pass and rows of every step of one dataset each."""
    return [(step.dataset, step.epoch, step.rows.tolist()) for step in map(plan.step, range(len(plan)))]


def uses(plan: Plan) -> Counter[tuple[str, int, int]]:
    """(dataset, pass, row) to how often it occurs."""
    parts = [part for index in range(len(plan)) for part in plan.parts(index)]
    return Counter((part.dataset, part.epoch, row) for part in parts for row in part.rows.tolist())


def runs(values: list[str]) -> list[str]:
    """The values without repeats next to each other."""
    return [value for index, value in enumerate(values) if index == 0 or values[index - 1] != value]
