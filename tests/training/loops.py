"""Small loops without Ray, in this process or one process per worker, for tests of training."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.bags.schedules import batch_level_shuffling
from boom_ray.config import DatasetConfig, ModelConfig, ResourcesConfig, TrainingConfig
from boom_ray.model.encoder import load_encoder
from boom_ray.model.losses.policy import policy_of
from boom_ray.training.group import Group
from boom_ray.training.loop import Listeners, Loop, Plan
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_tokens

SETTINGS: dict[str, Any] = {
    "batch_size": 8,
    "negatives": 2,
    "precision": "float32",
    "temperature": 0.1,
    "learning_rate": 1e-3,
    "log_every": 1,
    "micro_batch_tokens": 64,
}


def make_inputs(folder: Path) -> Path:
    """A tiny BERT, a retrieval dataset ``a`` of 40 examples and a labelled ``b`` of 24: 16 steps in two epochs."""
    make_tiny_model(folder / "base")
    write_tokens(folder / "a.arrow", "a", 40)
    write_tokens(folder / "b.arrow", "b", 24, labels=3)
    return folder


def make_loop(folder: Path, group: Group | None = None, model: ModelConfig | None = None, **changes: Any) -> Loop:
    """A loop over both datasets; ``changes`` replace fields of `SETTINGS`."""
    group = group or Group(0, 1)
    config = TrainingConfig(**{**SETTINGS, "resources": ResourcesConfig(workers=group.workers), **changes})
    torch.manual_seed(group.rank)  # must not matter
    encoder = load_encoder(folder / "base", model or ModelConfig(), dropout=config.dropout)
    corpus = {name: TokenDataset([folder / f"{name}.arrow"]) for name in "ab"}
    plan = batch_level_shuffling(
        {name: np.arange(len(data)) for name, data in corpus.items()},
        {name: data.ids for name, data in corpus.items()},
        config.batch_size,
        2,
        seed=1,
    )
    reader = BatchReader(corpus, config.negatives, 3, group.rank, group.workers)
    kinds = {"a": "retrieval", "b": "classification"}
    policies = {
        name: policy_of(DatasetConfig(name=name, source="-", task_type=kind), config.temperature)
        for name, kind in kinds.items()
    }
    steps = min(len(plan), config.max_steps or len(plan))
    return Loop(encoder, Plan(steps, lambda step: reader.read(plan.step(step)), policies, 16), config, 3, group)


def ignore(*_: object) -> None:
    """A listener."""


def run(loop: Loop, update: Callable[[int], None] = ignore) -> list[float]:
    """Train to the end; returns the losses that were logged."""
    losses: list[float] = []
    loop.run(Listeners(lambda done, figures: losses.append(figures["loss"]), update))
    return losses


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    """Name to trained weights in float32."""
    return loop.weights.full(averaged=False)


def _as_rank(work: Callable[..., Any], rank: int, workers: int, port: int, out: Path, arguments: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    torch.save(work(*arguments), out / f"{rank}.pt")
    torch.distributed.destroy_process_group()
    # A mesh keeps gloo's threads alive, and one that asks for the interpreter while it shuts down aborts the process
    # (pytorch/pytorch pull 179291): the work is done and stored, so the process ends without shutting it down.
    os._exit(0)


def on_workers(work: Callable[..., Any], workers: int, port: int, out: Path, *arguments: Any) -> list[Any]:
    """Run a function of a module in W processes of one gloo group; returns what each gave, tensors and plain values."""
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_as_rank, args=(work, rank, workers, port, out, arguments)) for rank in range(workers)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 400
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if any(process.exitcode for process in processes):
            break  # the others wait for it in vain
        time.sleep(0.1)
    for process in processes:
        process.kill() if process.is_alive() else None
        process.join()
    codes = [process.exitcode for process in processes]
    assert codes == [0] * workers, f"exit codes of the ranks: {codes}"
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(workers)]
