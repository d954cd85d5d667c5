"""What coefficient methods need to know about a tensor: the Gram matrix of its vectors, in float64.

float32 norms of large tensors are wrong on CPU (2 % at 156 million elements with torch 2.13, PEERS.md 0.6), so all
products are added in float64, in blocks of fixed size whose sums are added in order. The result does not depend on
the number of threads or on how the tensor was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.merging.methods import F64

BLOCK = 4096
"""Elements whose products are added in one go; chunks of a tensor are multiples of it."""


def block_grams(vectors: torch.Tensor) -> F64:
    """Gram matrix of every block of elements.

    Args:
        vectors: (M, n) float64, n a multiple of `BLOCK`; pad the last ones of a tensor with zeros.

    Returns:
        (n / BLOCK, M, M).
    """
    blocks = vectors.view(vectors.shape[0], -1, BLOCK).transpose(0, 1)
    grams: npt.NDArray[np.float64] = torch.bmm(blocks, blocks.transpose(1, 2)).numpy()
    return grams


def total_gram(parts: Sequence[F64], members: int) -> F64:
    """Sum of the blocks' Gram matrices in the order of the blocks, (M, M); zero for a tensor without elements."""
    if not parts:
        return np.zeros((members, members))
    total: F64 = np.add.reduce(np.concatenate(parts), axis=0)
    return total
