"""The training loop of one worker; no Ray in it.

A step: one forward pass over all texts of the worker's slice, sorted by length and cut into micro-batches; embeddings
gathered from all workers; the whole loss on every worker; gradients back through the micro-batches; gradients summed.
The result does not depend on the number of workers beyond rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.config import TrainingConfig
from boom_ray.errors import TrainingError
from boom_ray.hashing import stream_key
from boom_ray.model.encoder import Encoder
from boom_ray.model.steps import backward
from boom_ray.training.group import Group
from boom_ray.training.optimizer import learning_rate, make_optimizer


@dataclass
class Meter:
    """Figures gathered between two log lines."""

    started: float = field(default_factory=time.monotonic)
    losses: list[tuple[str, float]] = field(default_factory=list)
    pairs: int = 0
    tokens: int = 0
    padded: int = 0
    grad_norm: float = 0.0

    def figures(self, rate: float) -> dict[str, float]:
        """Means and rates since the meter was started, over all workers; the loss also by dataset, for steps differ."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        names = sorted({dataset for dataset, _ in self.losses})
        by_dataset = {
            f"loss/{name}": float(np.mean([loss for dataset, loss in self.losses if dataset == name])) for name in names
        }
        return {
            "loss": float(np.mean([loss for _, loss in self.losses])),
            **by_dataset,
            "learning_rate": rate,
            "grad_norm": self.grad_norm,
            "pairs_per_s": self.pairs / seconds,
            "tokens_per_s": self.tokens / seconds,
            "padding_share": 1 - self.tokens / max(1, self.padded),
        }


class Loop:
    """Trains an encoder on the steps of a plan.

    Args:
        encoder: the model, on its device.
        steps: number of steps.
        batch: step index to this worker's batch; called ahead of time from another thread.
        config: how to train.
        seed: seed of dropout.
        group: this worker's place.
    """

    def __init__(
        self,
        encoder: Encoder,
        steps: int,
        batch: Callable[[int], Batch],
        config: TrainingConfig,
        seed: int,
        group: Group,
    ) -> None:
        """Make the optimiser; nothing is trained yet."""
        self.encoder, self.steps, self.batch = encoder, steps, batch
        self.config, self.seed, self.group = config, seed, group
        self.parameters = encoder.trainable()
        self.optimizer = make_optimizer(self.parameters, config)
        self.meter = Meter()

    def run(
        self,
        start: int,
        log: Callable[[int, dict[str, float]], None],
        checkpoint: Callable[[int], None],
    ) -> None:
        """Train from step ``start`` to the end.

        Args:
            start: finished steps.
            log: called with (finished steps, figures) every ``log_every`` steps and after the last.
            checkpoint: called with the finished steps every ``checkpoint_every`` steps, not after the last.

        Raises:
            TrainingError: the loss or a gradient is not finite; names step, dataset and examples.
        """
        self.encoder.train()
        self.meter = Meter()
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[Batch] | None = None
            for index in range(start, self.steps):
                batch = ahead.result() if ahead else self.batch(index)
                ahead = reader.submit(self.batch, index + 1) if index + 1 < self.steps else None
                rate = learning_rate(index, self.steps, self.config)
                self._step(index, batch, rate)
                done = index + 1
                if done % self.config.log_every == 0 or done == self.steps:
                    log(done, self.meter.figures(rate))
                    self.meter = Meter()
                if done % self.config.checkpoint_every == 0 and done < self.steps:
                    checkpoint(done)

    def _step(self, index: int, batch: Batch, rate: float) -> None:
        torch.manual_seed(stream_key("dropout", self.seed, index, self.group.rank) >> 1)
        loss = self.backward(batch)
        self.group.sum_gradients(self.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm))
        if not np.isfinite(loss) or not np.isfinite(norm):
            raise TrainingError(
                f"Step {index} gave loss {loss} and gradient norm {norm}, on dataset {batch.dataset}, examples "
                f"{', '.join(f'{int(number):016x}' for number in batch.ids[:8])}…. Nothing of it was saved. Lower "
                f"training.learning_rate, raise training.temperature, or use training.precision=float32."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.losses.append((batch.dataset, loss))
        self.meter.grad_norm = norm
        self.meter.pairs += batch.size

    def backward(self, batch: Batch) -> float:
        """Gradients of the step's loss in the parameters' ``grad``, of this worker's texts; returns the whole loss."""
        done = backward(self.encoder, batch, self.config, self.group.gather)
        self.meter.tokens += done.tokens * self.group.workers
        self.meter.padded += done.padded * self.group.workers
        return done.loss
