"""What a user would write without us, for `benchmarks/sweeps.py`: merge to a folder, load it, evaluate with mteb.

*mergekit*: its in-memory API over the members' files, the result saved beside the first member's other files.
*state dicts*: `SentenceTransformer` of every member, their state dicts averaged, the result saved with `save`.

Nobody pays for the tasks' data here, which is in memory, nor for imports.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from merge_measure import mergekit_api
from mteb.abstasks import AbsTask
from sentence_transformers import SentenceTransformer

Merge = Callable[[Sequence[Path], str, Sequence[float], Path], None]


class Watch:
    """Seconds by the clock and of this process's CPU, from its making or `restart` to `stop`."""

    def __init__(self) -> None:
        """Start."""
        self.restart()

    def restart(self) -> None:
        """Start again."""
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Set ``wall`` and ``cpu``."""
        self.wall, self.cpu = time.perf_counter() - self._started[0], time.process_time() - self._started[1]


def by_mergekit(members: Sequence[Path], method: str, weights: Sequence[float], out: Path) -> None:
    """The in-memory API of mergekit in float32, and the other files of the first member."""
    task: dict[str, Any] = {
        "models": [str(member) for member in members],
        "base": False,
        "method": method,
        "parameters": {},
        "weights": list(weights),
        "dtype": "float32",
        "out": str(out),
    }
    mergekit_api(task)()
    shutil.copytree(members[0], out, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)


def by_state_dicts(members: Sequence[Path], method: str, weights: Sequence[float], out: Path) -> None:
    """Σ w_i θ_i of loaded models; there is no other method."""
    assert method == "linear", method
    models = [SentenceTransformer(str(member), device="cpu") for member in members]
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        averaged = {
            name: sum(weight * state[name] for weight, state in zip(weights, states, strict=True))
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
        models[0].load_state_dict(averaged)
    models[0].save(str(out))


def trial(
    merge: Merge,
    members: Sequence[Path],
    method: str,
    weights: Sequence[float],
    tasks: Sequence[AbsTask],
    out: Path,
) -> dict[str, Any]:
    """One trial in float32.

    Returns:
        ``merge``: seconds from the members to a loaded model; ``evaluation``: seconds; both also of the CPU
        (``merge_cpu``, ``evaluation_cpu``); ``scores`` by task.
    """
    merging = Watch()
    merge(members, method, weights, out)
    model = SentenceTransformer(str(out), device="cpu", model_kwargs={"dtype": torch.float32})
    merging.stop()
    watch = Watch()
    found = [
        mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]
        for task in tasks
    ]
    watch.stop()
    shutil.rmtree(out)
    return {
        "merge": merging.wall,
        "merge_cpu": merging.cpu,
        "evaluation": watch.wall,
        "evaluation_cpu": watch.cpu,
        "scores": {one.task_name: float(one.get_score()) for one in found},
    }


NAIVE: dict[str, Merge] = {"mergekit": by_mergekit, "state dicts": by_state_dicts}
METHODS: dict[str, tuple[str, ...]] = {"linear": ("mergekit", "state dicts"), "multislerp": ("mergekit",)}
"""Who can do a method."""
MOST = {"multislerp": 2}
"""Most members: mergekit refuses three that have a tensor of zeros, a bias that no step has changed."""


def recipes(count: int, members: int, seed: int) -> list[tuple[float, ...]]:
    """Weights, uniform on the simplex."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(members), count)
    return [tuple(np.round(row, 4).tolist()) for row in drawn]
