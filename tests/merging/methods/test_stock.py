"""Model Stock: mergekit where it is right, the paper's geometry, and where mergekit is not right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import MergeError
from boom_ray.merging.methods.stock import METHODS
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import STRIP
from tests.merging.merged import merged
from tests.merging.methods.drawn import FEW, drawn_vectors, fine_tunes
from tests.merging.methods.oracle import mergekit

(STOCK,) = METHODS
GRANULARITY = pytest.mark.parametrize("granularity", ["tensor", "row"])


def of(rows: F64 | list[list[float]], granularity: str = "tensor") -> F64:
    """Merged difference of vectors from a base of zeros."""
    tensors = list(torch.tensor(np.array(rows), dtype=torch.float64))
    found: F64 = merged(STOCK, tensors, torch.zeros_like(tensors[0]), granularity=granularity).numpy()
    return found


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("shape", [(40, 30), (50,), (3, 4, 50)])
@GRANULARITY
def test_is_mergekits(dtype: torch.dtype, close: float, count: int, shape: tuple[int, ...], granularity: str) -> None:
    base, members = fine_tunes(count, shape, common=0.7, dtype=dtype)
    expected = mergekit("model_stock", members, base, filter_wise=granularity == "row")
    found = merged(STOCK, members, base, dtype=dtype, granularity=granularity)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


@pytest.mark.parametrize("angle", [1e-6, 0.3, 1.0, 1.5])
@GRANULARITY
def test_two_members_end_at_the_foot_of_the_perpendicular_from_the_centre(angle: float, granularity: str) -> None:
    """The paper's picture: a centre m, seen from which b and both members stand at right angles to one another."""
    half = angle / 2
    pair = np.array([[np.cos(half), np.sin(half), 0.0], [np.cos(half), -np.sin(half), 0.0]])
    # m lies in the plane of symmetry, on the sphere through the base whose diameter ends are b and each w_i
    along = np.cos(angle) / np.cos(half)
    centre = np.array([along, 0.0, np.sqrt(max(np.cos(angle) - along**2, 0.0))])
    for one in pair:
        assert abs((one - centre) @ centre) < 1e-12
    assert abs((pair[0] - centre) @ (pair[1] - centre)) < 1e-12
    foot = np.array([centre[0], 0.0, 0.0])
    np.testing.assert_allclose(of(pair, granularity), foot, rtol=1e-9, atol=1e-12)


def test_right_angles_give_the_base_and_parallel_differences_their_average() -> None:
    np.testing.assert_array_equal(of(np.eye(3)), np.zeros(3))
    np.testing.assert_allclose(of([[1.0, 1.0], [3.0, 3.0]]), [2.0, 2.0], rtol=1e-15)


def test_small_differences_are_merged_like_large_ones_and_mergekits_are_not() -> None:
    rows = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    large, small = (of((rows * scale).numpy()) / scale for scale in (1.0, 1e-5))
    np.testing.assert_allclose(small, large, rtol=1e-12)
    theirs = mergekit("model_stock", list(rows * 1e-5), torch.zeros(2, dtype=torch.float64)) / 1e-5
    assert float(theirs[0]) < 0.01 * large[0]


def test_opposing_differences_give_the_base_where_mergekit_runs_away_from_the_average() -> None:
    rows = torch.tensor([[1.0, 0.05], [-0.9, 0.05]], dtype=torch.float64)
    np.testing.assert_array_equal(of(rows.numpy()), np.zeros(2))
    theirs = mergekit("model_stock", list(rows), torch.zeros(2, dtype=torch.float64))
    assert float(theirs.norm()) > 10
    np.testing.assert_array_equal(of([[1.0, 2.0], [-1.0, -2.0]]), np.zeros(2))


@GRANULARITY
def test_a_zero_difference_is_at_right_angles_to_all_others(granularity: str) -> None:
    """Mean cosine 1/3 of three pairs: t = 1 / (1 + 2/3)."""
    found = of([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]], granularity)
    np.testing.assert_allclose(found, [0.6, 0.6], rtol=1e-14)


@GRANULARITY
def test_members_that_did_not_move_are_the_base_bit_by_bit(granularity: str) -> None:
    base, _ = fine_tunes(1, (50, 3), dtype=torch.float32)
    found = merged(STOCK, [base, base, base], base, dtype=torch.float32, granularity=granularity)
    assert torch.equal(found, base)


def test_rows_that_did_not_move_are_the_bases_and_the_others_their_own() -> None:
    base, members = fine_tunes(3, (4, 6))
    for member in members:
        member[2] = base[2]
    found = merged(STOCK, members, base, granularity="row")
    assert torch.equal(found[2], base[2])
    for row in (0, 1, 3):
        alone = merged(STOCK, [member[row] for member in members], base[row])
        torch.testing.assert_close(found[row], alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(5, STRIP // 2 - 3), (3, STRIP + 5)])
def test_rows_are_merged_alike_whatever_the_strips_and_threads(shape: tuple[int, int]) -> None:
    base, members = fine_tunes(2, shape, dtype=torch.float32)
    one, *others = (
        merged(STOCK, members, base, dtype=torch.float32, threads=threads, granularity="row") for threads in (1, 2, 3)
    )
    assert all(torch.equal(one, other) for other in others)
    alone = merged(STOCK, [member[-1] for member in members], base[-1])
    torch.testing.assert_close(one[-1].double(), alone, rtol=1e-5, atol=1e-6)


@FEW
@given(rows=drawn_vectors(2), data=st.data(), factor=st.sampled_from([1e-6, 0.5, 1e6]))
@GRANULARITY
def test_order_does_not_matter_and_length_scales(
    granularity: str, rows: F64, data: st.DataObject, factor: float
) -> None:
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    found = of(rows, granularity)
    np.testing.assert_allclose(of(rows[order], granularity), found, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(of(rows * factor, granularity), found * factor, rtol=1e-9, atol=1e-9 * factor)


@FEW
@given(rows=drawn_vectors(2))
def test_the_result_lies_between_the_base_and_the_average(rows: F64) -> None:
    found, average = of(rows), rows.mean(axis=0)
    assert np.linalg.norm(found) <= np.linalg.norm(average) * (1 + 1e-12)
    assert found @ average == pytest.approx(np.linalg.norm(found) * np.linalg.norm(average), rel=1e-9, abs=1e-12)


@FEW
@given(row=drawn_vectors(1, 1), count=st.integers(2, 5))
@GRANULARITY
def test_equal_members_return_themselves(granularity: str, row: F64, count: int) -> None:
    np.testing.assert_allclose(of(np.repeat(row, count, 0), granularity), row[0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3), (1, 1), (2, 3, 4)])
@GRANULARITY
def test_shapes(shape: tuple[int, ...], granularity: str) -> None:
    base, members = fine_tunes(1, shape)
    found = merged(STOCK, members * 2, base, granularity=granularity)
    torch.testing.assert_close(found, members[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@GRANULARITY
def test_16_bit_members_are_merged_as_their_exact_values(dtype: torch.dtype, granularity: str) -> None:
    base, members = fine_tunes(3, (20, 50), dtype=dtype)
    exact = merged(STOCK, [one.double() for one in members], base.double(), granularity=granularity)
    found = merged(STOCK, members, base, dtype=torch.float32, granularity=granularity)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6)


@GRANULARITY
def test_weights_that_differ_are_refused_by_name(granularity: str) -> None:
    base, members = fine_tunes(2, (3,))
    with pytest.raises(MergeError, match=r"cannot follow the weights 0\.3, 0\.7"):
        merged(STOCK, members, base, [0.3, 0.7], granularity=granularity)


def test_knows_what_it_needs_and_has_no_coefficients_per_tensor_for_rows() -> None:
    assert STOCK.needs_for({"granularity": "row"}) == frozenset()
    assert STOCK.needs_for({"granularity": "tensor"}) == {"gram"}
    assert STOCK.rule is not None
    with pytest.raises(MergeError, match="granularity row"):
        STOCK.rule(Space.of_gram(np.eye(2)), np.array([0.5, 0.5]), {"granularity": "row"})
