"""AdamW over the right parameters, and the learning rate as a plain function of the update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from boom_ray.config import TrainingConfig
from boom_ray.errors import ModelError
from boom_ray.model.encoder import PREFIX, Encoder


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one learning rate and weight decay.

    Attributes:
        names: last block first, as their gradients become known.
        rate: factor of the learning rate.
        decay: decoupled weight decay.
    """

    names: tuple[str, ...]
    rate: float
    decay: float


def learning_rate(update: int, total: int, config: TrainingConfig) -> float:
    """Learning rate of update ``update`` (from 0) of ``total``: a linear rise, then the configured course.

    The rise ends at the configured rate at update `warmup`. linear and cosine fall from there and would
    reach final_ratio·rate at update ``total``; constant stays; wsd (warm-up, stable, decay; Hu et al. 2024, arXiv
    2404.06395) stays until the last ceil(decay_ratio·total) updates and falls linearly in them.
    """
    rise = warmup(total, config)
    if update < rise:
        return config.learning_rate * (update + 1) / rise
    start = fall(total, config) if config.decay == "wsd" else rise
    progress = max(0.0, (update - start) / max(1, total - start))
    if config.decay == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        left = 1.0 if config.decay == "constant" else 1 - progress
    return config.learning_rate * (config.final_ratio + (1 - config.final_ratio) * left)


def warmup(total: int, config: TrainingConfig) -> int:
    """Updates in which the rate rises: ``warmup_updates``, or ceil(warmup_ratio·total)."""
    return math.ceil(config.warmup_ratio * total) if config.warmup_updates is None else config.warmup_updates


def fall(total: int, config: TrainingConfig) -> int:
    """Updates before wsd's rate falls: all but the last ceil(decay_ratio·total), and no fewer than the warm-up."""
    return max(warmup(total, config), total - math.ceil(config.decay_ratio * total))


def parameter_groups(encoder: Encoder, config: TrainingConfig) -> list[ParameterGroup]:
    """Divide the trainable parameters by learning rate and weight decay.

    Biases and norm scales (one dimension) have no weight decay, nor has what ``no_decay`` names. With ``layer_decay`` g
    and L blocks, block i has the factor g^(L-1-i), what stands before the blocks (embeddings) g^L, what follows them 1
    (Clark et al. 2020, arXiv 2003.10555, section 3.1 for ELECTRA).

    Raises:
        ModelError: a pattern of ``no_decay`` matches no parameter.
    """
    trained = encoder.trainable()
    bare = {name: name.removeprefix(PREFIX) for name in trained}
    for pattern in config.no_decay:
        if not any(fnmatchcase(name, pattern) for name in bare.values()):
            raise ModelError(f"training.no_decay: {pattern} matches no trained parameter.")
    depths = _depths(encoder)
    found: dict[tuple[float, float], list[str]] = {}
    for name in reversed(trained):
        excluded = trained[name].ndim <= 1 or any(fnmatchcase(bare[name], pattern) for pattern in config.no_decay)
        decay = 0.0 if excluded else config.weight_decay
        rate = config.layer_decay ** (len(encoder.blocks()) - depths[name])
        found.setdefault((rate, decay), []).append(name)
    return [ParameterGroup(tuple(names), rate, decay) for (rate, decay), names in found.items()]


def _depths(encoder: Encoder) -> dict[str, int]:
    """Name of a parameter to its depth: 0 before the blocks, i+1 in block i, L behind them (as the last block)."""
    blocks = encoder.blocks()
    inside = {id(parameter): number + 1 for number, block in enumerate(blocks) for parameter in block.parameters()}
    before, found = True, {}
    for name, parameter in encoder.named_parameters():
        before = before and id(parameter) not in inside
        found[name] = inside.get(id(parameter), 0 if before and blocks else len(blocks))
    return found


def make_optimizer(groups: Sequence[Mapping[str, Any]], config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019) over groups with ``params``, ``weight_decay`` and ``rate``."""
    rated = [{**group, "lr": config.learning_rate * group["rate"]} for group in groups]
    return torch.optim.AdamW(rated, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
