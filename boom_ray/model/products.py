"""Faster matrix products on CPUs with 512-bit vectors: float32 linear layers by oneDNN instead of MKL.

torch computes float32 layers with MKL, which on an AMD EPYC reaches what vectors of 256 bits give. oneDNN, which torch
brings for bfloat16 and compiled models, uses all 512: 247 instead of 109 GFLOP/s and core, with sums of float32's
precision (docs/benchmarks.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CHECK = (3, 5, 2)  # rows, inputs and outputs of the product that is tried before oneDNN is relied on


class FastProducts(TorchFunctionMode):
    """Inside this block float32 layers on CPUs are computed by oneDNN, where that is known to be faster.

    For forward passes of whatever model: layers that need gradients, are on GPUs or have another type are left to
    torch. Which of the two computes depends on the kind of processor only, so results are reproducible.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace ``torch.nn.functional.linear``, and nothing else."""
        if func is torch.nn.functional.linear and not kwargs and _fits(*args):
            return _linear(*args)
        return func(*args, **(kwargs or {}))


@functools.cache
def has_fast_products() -> bool:
    """Whether this processor is known to gain, and torch has what computes on it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    rows, inputs, outputs = CHECK
    values, weight, bias = torch.ones(rows, inputs), torch.ones(outputs, inputs), torch.ones(outputs)
    try:  # the operator is there for torch's own compiler and promises nothing to others
        return bool(torch.equal(_linear(values, weight, bias), torch.full((rows, outputs), inputs + 1.0)))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _fits(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    given = (values, weight) if bias is None else (values, weight, bias)
    return (
        has_fast_products()
        and all(type(one) in (torch.Tensor, torch.nn.Parameter) for one in given)
        and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in given)
        and weight.dim() == 2
        and values.dim() >= 2
        and values.numel() > 0
        and not (torch.is_grad_enabled() and any(one.requires_grad for one in given))
    )


def _linear(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "none")
    return found
