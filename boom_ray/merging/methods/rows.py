"""Every row of a matrix (output neuron) by itself: inner products per row, and sums with coefficients per row."""

from __future__ import annotations

import numpy as np
import torch

from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import Strip

BLOCK = 4096
"""Elements of a row whose products are added in one go."""


def row_grams(rows: torch.Tensor, columns: int) -> F64:
    """Inner products of M vectors, row by row of the matrix that they are flattened from.

    Sums are in float64, in blocks of fixed size that are added in order.

    Args:
        rows: (M, R * columns), float32 or float64.
        columns: elements of one row of the matrix.

    Returns:
        (R, M, M).
    """
    count = len(rows)
    cut = rows.view(count, -1, columns).transpose(0, 1)
    blocks = -(-columns // BLOCK)
    if blocks > 1:
        padded = rows.new_zeros((len(cut), count, blocks * BLOCK), dtype=torch.float64)
        padded[:, :, :columns] = cut
        cut = padded.view(len(cut), count, blocks, BLOCK).transpose(1, 2).reshape(-1, count, BLOCK)
    else:
        cut = cut.to(torch.float64)
    products: F64 = torch.bmm(cut, cut.transpose(1, 2)).cpu().numpy().reshape(-1, blocks, count, count)
    sums: F64 = np.add.reduce(products, axis=1)
    return sums


def row_angles(strip: Strip, columns: int) -> F64:
    """Angles between the rows of two matrices.

    Args:
        strip: (2, R * columns) vectors.
        columns: elements of one row.

    Returns:
        (R,) radians; 0 where one of the rows is zero.
    """
    second = np.eye(2)[1]
    basis = strip.rows.to(torch.float64, copy=True)
    if strip.base is None:
        basis[1] -= basis[0]
        second = np.ones(2)
    grams = row_grams(basis, columns)
    first_lengths = _lengths(grams, np.array([[1.0, 0.0]]))
    second_lengths = _lengths(grams, second[None])
    known = (first_lengths > 0) & (second_lengths > 0)
    one = np.array([1.0, 0.0]) / np.where(known, first_lengths, 1.0)[:, None]
    two = second / np.where(known, second_lengths, 1.0)[:, None]
    angles: F64 = 2 * np.arctan2(_lengths(grams, one - two), _lengths(grams, one + two))
    return np.where(known, angles, 0.0)


def _lengths(grams: F64, combinations: F64) -> F64:
    """(R,) lengths of (R, K) combinations of the bases that (R, K, K) Gram matrices belong to."""
    squares: F64 = (combinations[:, None, :] @ grams @ combinations[:, :, None])[:, 0, 0]
    return np.sqrt(np.maximum(squares, 0.0))


def add_up_rows(rows: torch.Tensor, coefficients: F64) -> torch.Tensor:
    """Sum of M vectors with other coefficients in every row of the matrix; overwrites the vectors.

    Args:
        rows: (M, R * columns).
        coefficients: (R, M).

    Returns:
        (R * columns,).
    """
    factors = torch.from_numpy(np.ascontiguousarray(coefficients.T)).to(rows.device, rows.dtype)
    cut = rows.view(len(rows), len(coefficients), -1)
    cut.mul_(factors[:, :, None])
    total = cut[0]
    for row in cut[1:]:
        total.add_(row)
    return total.reshape(-1)
