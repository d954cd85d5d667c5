"""Gram matrices: exact where float32 is not, and the same whatever the threads."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from boom_ray.merging.statistics import BLOCK, block_grams, total_gram


def gram(rows: torch.Tensor, blocks: int) -> np.ndarray:
    parts = [block_grams(rows[:, at : at + blocks * BLOCK]) for at in range(0, rows.shape[1], blocks * BLOCK)]
    return total_gram(parts, len(rows))


def test_equals_exact_arithmetic() -> None:
    rows = torch.randn(3, 2 * BLOCK, generator=torch.Generator().manual_seed(1)).double()
    exact = [
        [float(sum(Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True))) for b in rows.tolist()]
        for a in rows.tolist()
    ]
    np.testing.assert_allclose(gram(rows, 1), exact, rtol=1e-12, atol=1e-10)


def test_the_squared_norm_of_many_equal_numbers_is_their_count_times_the_square() -> None:
    """torch's float32 norm of such tensors is off by 1e-4 and more."""
    value = float(np.float32(0.1))
    rows = torch.full((1, 1024 * BLOCK), value, dtype=torch.float64)
    assert gram(rows, 64)[0, 0] == pytest.approx(1024 * BLOCK * value * value, rel=1e-13)


def test_chunks_and_threads_do_not_change_a_bit() -> None:
    rows = torch.randn(4, 24 * BLOCK, generator=torch.Generator().manual_seed(2)).double()
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results += [gram(rows, blocks) for blocks in (1, 5, 24)]
    finally:
        torch.set_num_threads(threads)
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_a_tensor_without_elements_has_a_zero_matrix() -> None:
    np.testing.assert_array_equal(total_gram([], 2), np.zeros((2, 2)))
