"""Figures of training between two log lines: losses, rates, padding, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.model.steps import Work

PARTS = ("data", "forward", "loss", "backward", "communication", "update")


class Stopwatch:
    """Time by part. On GPUs the host runs ahead, so events of the device's own clock are recorded and read later."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is running."""
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """The part that begins now ends the one before it."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds by part since the last call; the running part goes on. Waits for the device."""
        if not self._marks:
            return {}
        running = self._marks[-1][0]
        self.mark(running)
        if self._on_gpu:
            self._marks[-1][1].synchronize()
        found: dict[str, float] = {}
        for (part, began), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            length = began.elapsed_time(ended) / 1000 if self._on_gpu else ended - began
            found[part] = found.get(part, 0.0) + length
        self._marks = self._marks[-1:]
        return found


class Meter:
    """Gathers figures of steps.

    Args:
        device: where losses are.
        workers: W, by which this worker's tokens are multiplied.
        flops: floating-point operations of a step's texts, and the device's peak per second; None if unknown.
    """

    def __init__(self, device: torch.device, workers: int, peak: float | None = None) -> None:
        """Start now."""
        self.watch, self.device = Stopwatch(device), device
        self.workers, self.peak = workers, peak
        self.clear()

    def clear(self, losses: Sequence[tuple[str, float]] = ()) -> None:
        """Forget all steps but these losses of datasets, keep the clock's running part."""
        self.started = time.monotonic()
        self._losses = [(name, torch.tensor(loss, dtype=torch.float64, device=self.device)) for name, loss in losses]
        self._norms: list[torch.Tensor] = []
        self.pairs = self.tokens = self.slots = 0
        self.flops = 0.0

    def step(self, batch: Batch, work: Work, loss: torch.Tensor, flops: float) -> None:
        """One step of this worker; ``flops`` are those of its texts, forward and backward."""
        self._losses.append((batch.dataset, loss))
        self.pairs += batch.size
        self.tokens += work.tokens
        self.slots += work.slots
        self.flops += flops

    def update(self, norm: torch.Tensor) -> None:
        """One update."""
        self._norms.append(norm)

    def losses(self) -> list[tuple[str, float]]:
        """(dataset, loss) of the steps since the last log line; waits for the device."""
        return [(name, float(loss)) for name, loss in self._losses]

    def figures(self, rate: float) -> dict[str, float]:
        """Means and rates since the last call, over all workers; the loss also by dataset, for steps differ.

        Waits for the device.
        """
        losses = torch.stack([loss.double() for _, loss in self._losses]).tolist()
        by_dataset: dict[str, list[float]] = {}
        for (name, _), loss in zip(self._losses, losses, strict=True):
            by_dataset.setdefault(name, []).append(loss)
        parts = self.watch.seconds()
        seconds = max(time.monotonic() - self.started, 1e-9)
        found = {
            "loss": float(np.mean(losses)),
            **{f"loss/{name}": float(np.mean(values)) for name, values in sorted(by_dataset.items())},
            "learning_rate": rate,
            "grad_norm": float(self._norms[-1]),
            "pairs_per_s": self.pairs / seconds,
            "tokens_per_s": self.tokens * self.workers / seconds,
            "padding_share": 1 - self.tokens / max(1, self.slots),
        }
        total = sum(parts.values()) or 1.0
        found |= {f"time/{name}": parts.get(name, 0.0) / total for name in PARTS}
        if self.peak:
            found["mfu"] = self.flops / seconds / self.peak
        self.clear()
        return found
