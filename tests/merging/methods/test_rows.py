"""Inner products and angles row by row, for rows below, at and above the size of a block."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boom_ray.merging.methods.rows import BLOCK, add_up_rows, row_angles, row_grams
from boom_ray.merging.tensors.vectors import Strip

COLUMNS = pytest.mark.parametrize("columns", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])


def matrices(count: int, columns: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(columns)
    return torch.randn(count, 4 * columns, generator=generator, dtype=torch.float64).to(dtype)


@COLUMNS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grams_are_those_of_every_row(columns: int, dtype: torch.dtype) -> None:
    rows = matrices(3, columns, dtype)
    cut = rows.double().view(3, 4, columns).numpy()
    np.testing.assert_allclose(row_grams(rows, columns), np.einsum("irc,jrc->rij", cut, cut), rtol=1e-11, atol=1e-11)


@COLUMNS
def test_threads_and_neighbours_do_not_change_a_bit(columns: int) -> None:
    rows = matrices(3, columns)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = row_grams(rows, columns)
        torch.set_num_threads(2)
        np.testing.assert_array_equal(row_grams(rows, columns), together)
        last = row_grams(rows[:, -columns:].contiguous(), columns)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(last[0], together[-1])


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-3, 1.0, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_angles_of_whole_rows_keep_their_digits(angle: float, dtype: torch.dtype) -> None:
    first = [1.0, 0.0, 3.0, 0.0, 0.0, 0.0]
    second = [2 * math.cos(angle), 2 * math.sin(angle), 3 * math.cos(angle), 3 * math.sin(angle), 1.0, 1.0]
    rows = torch.tensor([first, second], dtype=dtype)
    stored = rows.double()
    expected = math.atan2(float(stored[1, 1]), float(stored[1, 0]))
    found = row_angles(Strip(0, rows), 2)
    np.testing.assert_allclose(found[1], math.atan2(float(stored[1, 3]), float(stored[1, 2])), rtol=1e-9)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-7)
    assert found[2] == 0.0  # the first is zero there
    assert torch.equal(rows, stored.to(dtype))


def test_angles_of_differences_are_their_own() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0, 2.0], [0.0, 5.0, 0.0, 3.0]], dtype=torch.float64)
    found = row_angles(Strip(0, rows, torch.zeros(4, dtype=torch.float64)), 2)
    np.testing.assert_allclose(found, [math.pi / 2, 0.0], atol=1e-15)


def test_sums_with_coefficients_per_row() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    found = add_up_rows(rows, np.array([[1.0, 0.5], [0.0, 0.25]]))
    assert found.tolist() == [6.0, 12.0, 7.5, 10.0]
