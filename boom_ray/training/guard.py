"""Bad steps: losses or gradients that are not finite, and losses that leap. Found without waiting for a GPU.

Whether a step is bad is decided on the model's device and given to AdamW, which then leaves weights and moments as they
are, and to the moving average of the weights. The host learns of it at the next log line; until then nothing bad has
entered the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.config import TrainingConfig
from boom_ray.errors import TrainingError

MEMORY = 0.9  # share of the old value in a dataset's moving average of its loss
SHOWN = 8  # example ids in a message


@dataclass(frozen=True)
class Verdict:
    """One update, with what to say of it if it is bad.

    Attributes:
        step: last step of the update.
        datasets: of its steps.
        ids: of some of its examples.
        values: (3,) on the device: 1 if it is bad, else 0; loss; gradient norm.
    """

    step: int
    datasets: tuple[str, ...]
    ids: tuple[int, ...]
    values: torch.Tensor

    def text(self, leap: float | None) -> str:
        """What happened, and what to do."""
        _, loss, norm = self.values.tolist()
        finite = torch.isfinite(self.values).all()
        what = f"more than max_leap={leap:g} times the moving average of its dataset" if finite else "not finite"
        ids = ", ".join(f"{number:016x}" for number in self.ids)
        return (
            f"Step {self.step} gave loss {loss:.6g} and gradient norm {norm:.6g}, {what}, on dataset "
            f"{', '.join(self.datasets)}, examples {ids}…. It changed no weights. Lower training.learning_rate, raise "
            f"training.temperature, use training.precision=float32, or set training.on_bad_step=skip."
        )


class Guard:
    """Judges every update.

    Args:
        config: ``on_bad_step`` and ``max_leap``.
        device: where losses are.
        losses: dataset to the moving average of its loss, from a checkpoint.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, losses: dict[str, float] | None = None) -> None:
        """Start without verdicts."""
        self.config, self.device = config, device
        known = losses or {}
        self._averages = {
            name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in known.items()
        }
        self._verdicts: list[Verdict] = []

    def judge(
        self, step: int, batches: Sequence[Batch], losses: Sequence[torch.Tensor], norm: torch.Tensor
    ) -> torch.Tensor:
        """Whether an update is bad, as a float32 scalar on the device: 1 or 0.

        Args:
            step: its last step.
            batches: its steps' batches.
            losses: their losses, scalars.
            norm: L2 norm of the gradients.
        """
        bad = ~torch.isfinite(norm)
        for batch, loss in zip(batches, losses, strict=True):
            bad = bad | ~torch.isfinite(loss) | self._leaps(batch.dataset, loss.double())
        flag = bad.to(torch.float32)
        values = torch.stack([flag.double(), torch.stack(list(losses)).double().mean(), norm.double()])
        names = tuple(dict.fromkeys(batch.dataset for batch in batches))
        ids = tuple(int(number) for batch in batches for number in batch.ids[:SHOWN])[:SHOWN]
        self._verdicts.append(Verdict(step, names, ids, values))
        return flag

    def _leaps(self, dataset: str, loss: torch.Tensor) -> torch.Tensor:
        limit = self.config.max_leap
        if limit is None:
            return torch.zeros((), dtype=torch.bool, device=self.device)
        average = self._averages.get(dataset, loss)
        average = torch.where(torch.isfinite(average), average, loss)  # the dataset's first losses may have been bad
        leaps = (average > 0) & (loss > limit * average)  # a dataset's loss may be exactly 0 at first
        moved = MEMORY * average + (1 - MEMORY) * loss
        self._averages[dataset] = torch.where(leaps | ~torch.isfinite(loss), average, moved)
        return leaps

    def check(self) -> list[Verdict]:
        """Bad updates since the last check; waits for the device.

        Raises:
            TrainingError: there is one, and ``on_bad_step`` is stop.
        """
        verdicts, self._verdicts = self._verdicts, []
        if not verdicts:
            return []
        flags = torch.stack([one.values[0] for one in verdicts]).tolist()
        bad = [one for one, flag in zip(verdicts, flags, strict=True) if flag]
        if bad and self.config.on_bad_step == "stop":
            raise TrainingError(bad[0].text(self.config.max_leap))
        return bad

    def averages(self) -> dict[str, float]:
        """Moving averages, for a checkpoint; waits for the device."""
        return {name: float(value) for name, value in self._averages.items()}
