"""Attention over padded texts on a CPU, forward and backward: ours, torch's fused one, transformers' eager one.

    python benchmarks/attention.py

Shapes are those of micro-batches of 2,048 tokens in MiniLM (12 heads of 32) and BERT-base (12 heads of 64), with
padding at the end of half of the texts. The three alternate in one run; the median of several counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert.modeling_bert import eager_attention_forward

from boom_ray.model.attention import padded_attention

SHAPES = [(heads, length) for heads in (32, 64) for length in (16, 32, 64, 128, 256, 512)]
WAYS: dict[str, Callable[..., tuple[torch.Tensor, object]]] = {
    "ours": padded_attention,
    "fused": sdpa_attention_forward,
    "eager": eager_attention_forward,
}


def once(
    way: Callable[..., tuple[torch.Tensor, object]],
    tensors: list[torch.Tensor],
    mask: torch.Tensor,
    gradient: torch.Tensor,
) -> float:
    """Seconds of one forward and backward pass."""
    module = SimpleNamespace(training=True, num_key_value_groups=1, is_causal=False)
    started = time.perf_counter()
    found, _ = way(module, *tensors, mask, dropout=0.0, scaling=tensors[0].shape[-1] ** -0.5)
    found.backward(gradient)
    return time.perf_counter() - started


def measure(width: int, length: int, kind: torch.dtype, repeats: int) -> dict[str, float]:
    """Median milliseconds of every way."""
    texts = 2048 // length
    tensors = [torch.randn(texts, 12, length, width, dtype=kind).requires_grad_() for _ in range(3)]
    real = torch.ones(texts, 1, length, length, dtype=torch.bool)
    real[::2, :, :, length - length // 4 :] = False
    added = torch.zeros(real.shape, dtype=kind).masked_fill_(~real, torch.finfo(kind).min)
    gradient = torch.randn(texts, length, 12, width, dtype=kind)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(repeats + 2):
        for name, way in WAYS.items():
            seconds = once(way, tensors, added if name == "eager" else real, gradient)
            if number >= 2:
                times[name].append(1000 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print a table for both types."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for kind in (torch.bfloat16, torch.float32):
        for width, length in SHAPES:
            found = measure(width, length, kind, arguments.repeats)
            line = "  ".join(f"{name} {value:7.2f} ms" for name, value in found.items())
            ratios = (
                f"fused / ours {found['fused'] / found['ours']:.1f}  eager / ours {found['eager'] / found['ours']:.1f}"
            )
            print(
                f"{kind!s:15} 12 heads of {width}, {2048 // length:3} texts of {length:3}: {line}  {ratios}", flush=True
            )


if __name__ == "__main__":
    main()
