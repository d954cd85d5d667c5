"""One tensor merged in memory: what tests of methods and oracles call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from boom_ray.config.methods import PARAMETERS
from boom_ray.merging.methods.method import Method
from boom_ray.merging.tensors.vectors import MemoryVectors, Pool


def merged(
    method: Method,
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None = None,
    weights: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
    name: str = "w",
    threads: int = 1,
    vectors: MemoryVectors | None = None,
    **parameters: Any,
) -> torch.Tensor:
    """The merged tensor in ``dtype``; weights are scaled to sum 1, parameters completed by the method's defaults."""
    raw = np.array([1.0] * len(tensors) if weights is None else weights, dtype=np.float64)
    complete = PARAMETERS[method.name].model_validate(parameters).model_dump()
    with Pool(threads) as pool:
        found = vectors or MemoryVectors(name, tensors, base, labels, dtype, pool)
        combine = method.prepare(found, raw / raw.sum(), complete)
        pieces = [piece.clone() for piece in found.map(combine, method.rows_for(complete))]
    flat = torch.cat(pieces) if pieces else tensors[0].new_zeros(0, dtype=dtype)
    value = flat.reshape(tensors[0].shape)
    return value if base is None else value + base.to(dtype)
