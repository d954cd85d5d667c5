import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.hashing import stream_key
from boom_ray.merging.tensors.masks import numbers_of, uniform

MASK64 = (1 << 64) - 1


def split_mix(value: int, key: int) -> int:
    """SplitMix64's finaliser in Python's integers."""
    z = ((value ^ key) + 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def test_numbers_are_the_halves_of_keyed_hashes():
    key = stream_key(3, "mask", "encoder/w", "abc")
    expected = []
    for index in range(7):
        word = split_mix(index // 2, key)
        half = (word >> 32) if index % 2 else (word & 0xFFFFFFFF)
        expected.append((half >> 8) / 2**24)
    assert uniform(3, "encoder/w", "abc", 0, 7).tolist() == expected


@given(st.integers(0, 10**12), st.integers(0, 300), st.integers(0, 300))
def test_slices_of_a_tensor_agree(start, offset, count):
    whole = uniform(0, "w", "m", start, offset + count)
    assert np.array_equal(uniform(0, "w", "m", start + offset, count), whole[offset:])


def test_numbers_are_uniform():
    numbers = uniform(1, "w", "m", 5, 1 << 20)
    assert numbers.dtype == np.float32 and numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(numbers))
    assert abs(numbers.var() - 1 / 12) < 1e-3
    counts = np.bincount((numbers * 64).astype(int), minlength=64)
    expected = len(numbers) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)


def test_neighbours_are_independent():
    numbers = uniform(1, "w", "m", 0, 1 << 18)
    for step in (1, 2, 3, 64, 384):
        assert abs(np.corrcoef(numbers[:-step], numbers[step:])[0, 1]) < 5 / np.sqrt(len(numbers))


@pytest.mark.parametrize("other", [(1, "w", "m"), (0, "v", "m"), (0, "w", "n"), (0, "wm", "")])
def test_seed_tensor_and_member_have_numbers_of_their_own(other):
    first, second = uniform(0, "w", "m", 0, 1 << 16), uniform(*other, 0, 1 << 16)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / 256


def test_numbers_of_scattered_elements():
    positions = np.sort(np.random.default_rng(0).choice(10**9, 100_000, replace=False))
    numbers = numbers_of("w", "m", positions)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs((numbers < 0.3).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(positions))
    assert np.array_equal(numbers_of("w", "m", positions[500:700]), numbers[500:700])
    for other in (("w", "n"), ("v", "m")):
        assert abs(np.corrcoef(numbers, numbers_of(*other, positions))[0, 1]) < 5 / np.sqrt(len(positions))
