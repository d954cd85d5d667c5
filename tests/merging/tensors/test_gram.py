"""Gram matrices: exact where float32 is not, and the same whatever the threads."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from boom_ray.merging.tensors.gram import basis_gram, total
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import MemoryVectors, Pool, Strip

BLOCK = 4096


def gram(rows: torch.Tensor, blocks: int, base: torch.Tensor | None = None) -> F64:
    """Gram matrix of the basis, with strips of some blocks."""
    step = blocks * BLOCK
    parts = [
        basis_gram(Strip(at, rows[:, at : at + step].clone(), None if base is None else base[at : at + step]))
        for at in range(0, rows.shape[1], step)
    ]
    return total(parts, len(rows) + (base is not None))


def normal(count: int, size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fractions_gram(rows: torch.Tensor) -> list[list[float]]:
    exact = [[Fraction(value) for value in row] for row in rows.tolist()]
    return [[float(sum(x * y for x, y in zip(a, b, strict=True))) for b in exact] for a in exact]


def test_without_base_the_basis_is_the_first_member_and_differences_from_it() -> None:
    rows = normal(3, BLOCK + 17).float()
    basis = rows.double().clone()
    basis[1:] -= basis[0]
    np.testing.assert_allclose(gram(rows, 1), fractions_gram(basis), rtol=1e-12, atol=1e-10)


def test_with_base_the_basis_is_the_base_and_the_vectors() -> None:
    rows, base = normal(2, BLOCK + 17), normal(1, BLOCK + 17, 2)[0]
    expected = fractions_gram(torch.cat([base[None], rows]))
    np.testing.assert_allclose(gram(rows, 1, base), expected, rtol=1e-12, atol=1e-10)


def test_the_strip_is_left_as_it_was() -> None:
    rows = normal(3, 100)
    strip = Strip(0, rows.clone())
    basis_gram(strip)
    assert torch.equal(strip.rows, rows)


def test_twenty_million_float32_numbers_keep_twelve_digits() -> None:
    """torch's float32 norm of tensors this large is off by 1e-4 and more."""
    values = torch.rand(20_000_000, generator=torch.Generator().manual_seed(3)).add_(0.5)
    exact = float(np.square(values.numpy().astype(np.float64)).sum())
    step = 1024 * BLOCK
    parts = [basis_gram(Strip(at, values[None, at : at + step])) for at in range(0, len(values), step)]
    assert total(parts, 1)[0, 0] == pytest.approx(exact, rel=1e-12)


def test_the_squared_norm_of_many_equal_numbers_is_their_count_times_the_square() -> None:
    value = float(np.float32(0.1))
    rows = torch.full((1, 256 * BLOCK), value, dtype=torch.float32)
    assert gram(rows, 16)[0, 0] == pytest.approx(256 * BLOCK * value * value, rel=1e-12)


@pytest.mark.parametrize("with_base", [False, True])
def test_threads_do_not_change_a_bit(with_base: bool) -> None:
    rows = normal(4, 24 * BLOCK - 5, 2).float()
    results = []
    for threads in (1, 2, 3):
        with Pool(threads) as pool:
            vectors = MemoryVectors("w", list(rows), rows[0] + 1 if with_base else None, pool=pool)
            results.append(vectors.space.basis)
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_equal_members_have_no_difference_at_all() -> None:
    rows = normal(1, 2 * BLOCK).float().repeat(3, 1)
    found = gram(rows, 1)
    assert found[0, 0] > 0
    found[0, 0] = 0
    assert not found.any()


def test_a_tensor_without_elements_has_a_zero_matrix() -> None:
    np.testing.assert_array_equal(total([], 2), np.zeros((2, 2)))
