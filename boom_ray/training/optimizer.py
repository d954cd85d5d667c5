"""AdamW over the right parameters, and the learning rate as a plain function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from boom_ray.config import TrainingConfig


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Learning rate of step ``step`` (from 0) of ``total``: a linear rise, then the configured fall towards 0.

    The rise ends at the configured rate at step ceil(warmup_ratio·total); the fall would reach 0 at step ``total``.
    """
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if config.decay == "linear":
        return config.learning_rate * (1 - progress)
    if config.decay == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW with decoupled weight decay on matrices only; biases and norm scales (1-d) have none."""
    ordered = [parameters[name] for name in sorted(parameters)]
    groups = [
        {"params": [parameter for parameter in ordered if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in ordered if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, fused=True
    )
