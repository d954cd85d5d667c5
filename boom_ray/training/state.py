"""Checkpoints of a running member: weights, optimiser moments and the step, as safetensors.

Random numbers need no state: dropout is seeded by (seed, step, rank), data order comes from the plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from boom_ray.model.encoder import Encoder

MOMENTS = ("exp_avg", "exp_avg_sq")
STATE = "state.safetensors"
PROGRESS = "progress.json"


def save_state(
    folder: Path, encoder: Encoder, optimizer: torch.optim.AdamW, step: int, curve: Sequence[tuple[int, float]] = ()
) -> None:
    """Write what is needed to continue after ``step`` finished steps, and the loss curve so far."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in encoder.trainable().items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for moment in MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].contiguous()
    save_file(tensors, str(folder / STATE))
    (folder / PROGRESS).write_text(json.dumps({"step": step, "curve": list(curve)}), encoding="utf-8")


def load_state(folder: Path, encoder: Encoder, optimizer: torch.optim.AdamW) -> tuple[int, list[tuple[int, float]]]:
    """Put a checkpoint back; returns the number of finished steps and the loss curve up to there."""
    progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    step = int(progress["step"])
    tensors = load_file(str(folder / STATE))
    with torch.no_grad():
        for name, parameter in encoder.trainable().items():
            parameter.copy_(tensors[f"weight/{name}"])
            if f"{MOMENTS[0]}/{name}" in tensors:
                state = {moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS}
                optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **state}
    return step, [(int(place), float(loss)) for place, loss in progress["curve"]]
