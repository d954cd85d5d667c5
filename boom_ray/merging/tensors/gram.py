"""Inner products of the vectors of a tensor, in float64.

float32 norms of large tensors are wrong on CPU (2 % at 156 million elements with torch 2.13, PEERS.md 0.6), so all
products are added in float64, strip by strip, and the strips' sums are added in their order. The result does not depend
on the number of threads or on what was held in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from boom_ray.merging.tensors.space import F64

if TYPE_CHECKING:
    from boom_ray.merging.tensors.vectors import Strip

_scratch = threading.local()


def basis_gram(strip: Strip) -> F64:
    """Gram matrix of the strip's basis.

    The basis is (base, differences from it) when there is a base, else (first member, the others' differences from it);
    see `boom_ray.merging.tensors.space`.

    Returns:
        (K, K); K = M + 1 with a base, else M.
    """
    basis = _basis(strip)
    count = len(basis)
    gram = basis.new_empty((count, count))
    for index in range(count):  # a matrix-vector product per row takes half the time of a matrix product this thin
        gram[index, index:] = gram[index:, index] = torch.mv(basis[index:], basis[index])
    found: F64 = gram.cpu().numpy()
    return found


def _basis(strip: Strip) -> torch.Tensor:
    """(K, n) float64 in memory that the calling thread uses again for its next strip."""
    first = 0 if strip.base is None else 1
    shape = (len(strip.rows) + first, strip.rows.shape[1])
    held = getattr(_scratch, "basis", None)
    if held is None or held.numel() < shape[0] * shape[1] or held.device != strip.rows.device:
        held = _scratch.basis = strip.rows.new_empty(shape, dtype=torch.float64).view(-1)
    basis: torch.Tensor = held[: shape[0] * shape[1]].view(shape)
    basis[first:] = strip.rows
    if strip.base is None:
        basis[1:] -= basis[0]
    else:
        basis[0] = strip.base
    return basis


def total(parts: Sequence[F64], size: int) -> F64:
    """Sum of the strips' Gram matrices in their order, (size, size); zero for a tensor without elements."""
    result: F64 = np.add.reduce(parts, axis=0) if parts else np.zeros((size, size))
    return result
