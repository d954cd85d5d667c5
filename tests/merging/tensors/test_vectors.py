"""Strips: all elements once, in order, the same bytes with any number of threads, and who holds NaN."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import MergeError
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.tensors.space import Space
from boom_ray.merging.tensors.vectors import STRIP, MemoryVectors, Pool, Strip
from tests.merging.merged import merged
from tests.merging.methods.drawn import fine_tunes

COEFFICIENT = [
    "linear",
    "task_arithmetic",
    "slerp",
    "nuslerp",
    "multislerp",
    "riemannian_step",
    "karcher",
    "model_stock",
]
LARGE = (2 * STRIP // 300 + 40, 300)


def seen(vectors: MemoryVectors, by_rows: bool = False) -> list[tuple[int, int]]:
    return vectors.map(lambda strip: (strip.start, strip.rows.shape[1]), by_rows)


@given(
    shape=st.lists(st.integers(0, 5), max_size=3).map(tuple)
    | st.tuples(st.integers(1, 3), st.sampled_from([1, 7, STRIP - 1, STRIP, STRIP + 1])),
    by_rows=st.booleans(),
)
def test_strips_cover_every_element_once(shape: tuple[int, ...], by_rows: bool) -> None:
    vectors = MemoryVectors("w", [torch.zeros(shape)])
    at = 0
    for start, length in seen(vectors, by_rows):
        assert start == at and length > 0
        assert not by_rows or (start % vectors.columns == 0 and length % vectors.columns == 0)
        assert length <= max(STRIP, vectors.columns)
        at += length
    assert at == vectors.numel


def test_rows_are_the_last_dimension_and_a_vector_is_one_row() -> None:
    shapes = {(4, 6): 6, (2, 3, 5): 5, (7,): 7, (): 1, (0,): 1, (3, 0): 1}
    assert {shape: MemoryVectors("w", [torch.zeros(shape)]).columns for shape in shapes} == shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_strips_hold_the_values_in_the_type_of_the_arithmetic(dtype: torch.dtype, stored: torch.dtype) -> None:
    base, members = fine_tunes(2, (5, 7), dtype=stored)

    def check(strip: Strip) -> None:
        assert strip.rows.dtype == dtype
        whole = torch.stack([member.reshape(-1).to(dtype) for member in members])
        assert torch.equal(strip.rows, whole if strip.base is None else whole - base.reshape(-1).to(dtype))

    MemoryVectors("w", members, dtype=dtype).map(check)
    MemoryVectors("w", members, base, dtype=dtype).map(check)


def test_what_a_method_overwrites_stays_in_the_strip() -> None:
    members = [torch.ones(10), torch.full((10,), 2.0)]
    vectors = MemoryVectors("w", members, dtype=torch.float32)
    vectors.map(lambda strip: strip.rows.zero_())
    assert members[0].sum() == 10
    assert vectors.map(lambda strip: float(strip.rows.sum())) == [30.0]


@pytest.mark.parametrize("with_base", [False, True])
def test_the_space_is_that_of_the_vectors(with_base: bool) -> None:
    base, members = fine_tunes(3, LARGE)
    flat = torch.stack(members).reshape(3, -1) - (base.reshape(-1) if with_base else 0)
    space = MemoryVectors("w", members, base if with_base else None).space
    np.testing.assert_allclose(space.gram, (flat @ flat.T).numpy(), rtol=1e-11)


def test_a_space_that_is_known_costs_no_pass() -> None:
    vectors = MemoryVectors("w", [torch.full((3,), float("nan"))] * 2)
    vectors.know(Space.of_gram(np.eye(2)))
    np.testing.assert_array_equal(vectors.space.gram, np.eye(2))


@pytest.mark.parametrize("name", COEFFICIENT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_threads_gives_the_same_bytes(name: str, dtype: torch.dtype) -> None:
    method = METHODS[name]
    base, members = fine_tunes(method.most or 3, LARGE, dtype=torch.float32)
    start = base if method.base == "required" else None
    one, *others = (merged(method, members, start, dtype=dtype, threads=threads) for threads in (1, 2, 3))
    assert all(torch.equal(one, other) for other in others)


def test_results_come_in_the_order_of_the_strips() -> None:
    first = threading.Event()

    def wait_for_the_second(strip: Strip) -> int:
        if strip.start == 0:
            assert first.wait(60)
        else:
            first.set()
        return strip.start

    with Pool(2) as pool:
        vectors = MemoryVectors("w", [torch.zeros(2 * STRIP)], pool=pool)
        assert vectors.map(wait_for_the_second) == [0, STRIP]


def test_buffers_belong_to_threads_and_names() -> None:
    pool = Pool()
    one = pool.buffer("a", 100)
    assert pool.buffer("a", 50).data_ptr() == one.data_ptr()
    assert pool.buffer("b", 100).data_ptr() != one.data_ptr()
    others: list[int] = []
    thread = threading.Thread(target=lambda: others.append(pool.buffer("a", 100).data_ptr()))
    thread.start()
    thread.join()
    assert others != [one.data_ptr()]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [-1, 0, 2])
def test_not_a_number_is_named_with_tensor_and_member(bad: float, where: int) -> None:
    base, members = fine_tunes(3, (2, STRIP))
    broken = base if where < 0 else members[where]
    broken[1, STRIP - 1] = bad
    vectors = MemoryVectors("encoder/layer.3.weight", members, base, ["red", "green", "blue"])
    who = "the base" if where < 0 else ["red", "green", "blue"][where]
    with pytest.raises(MergeError, match=rf"Tensor encoder/layer\.3\.weight of {who} holds NaN or infinity"):
        vectors.map(lambda strip: None)
    with pytest.raises(MergeError, match=f"of {who} holds"):
        _ = vectors.space


def test_large_numbers_are_not_taken_for_infinity() -> None:
    """Their float32 sum overflows."""
    vectors = MemoryVectors("w", [torch.full((10,), 3e38)], dtype=torch.float32)
    assert vectors.map(lambda strip: strip.rows.shape[1]) == [10]
