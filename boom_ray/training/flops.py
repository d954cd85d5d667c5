"""Floating-point operations of a step, and what a device could do: together the model FLOPs utilisation (MFU).

Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): what the model needs, not what recomputation
adds, and attention in full, also where it looks back only; a multiplication and an addition are two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from boom_ray.artifacts.tokens import I32
from boom_ray.model.encoder import Encoder

# Dense bfloat16 rates by the makers' data sheets; operations per second.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bfloat16 operations per second; None if it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for key, rate in PEAKS.items() if key in name), None)


class Flops:
    """Counts the operations of texts, forward and backward.

    Args:
        encoder: the model, on one device and not yet sharded.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Look at the model's shape."""
        blocks = [*encoder.blocks(), encoder.dense]
        matrices = [one for block in blocks for one in block.parameters() if one.ndim > 1]
        everything = sum(one.numel() for one in matrices)
        trained = sum(one.numel() for one in matrices if one.requires_grad)
        self.per_token = 4.0 * everything + 2.0 * trained  # forward 2, gradients of inputs 2, of trained weights 2
        config: Any = encoder.core.config
        heads = int(getattr(config, "num_attention_heads", 0) or 0)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)) * heads
        self.per_pair = 12.0 * len(encoder.blocks()) * width  # of tokens, in attention

    def of(self, texts: Sequence[I32]) -> float:
        """Operations of embedding the texts and going back once."""
        return float(sum(self.per_token * len(text) + self.per_pair * len(text) ** 2 for text in texts))
