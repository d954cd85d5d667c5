"""Self Positioning: the chain of slerps, on whole vectors and by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.merging.methods.positioning import METHODS, chain, self_positioning
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import MemoryVectors
from boom_ray.merging.tensors.whole import WholeModel
from tests.merging.methods.drawn import FEW, drawn_vectors, drawn_weights

(METHOD,) = METHODS


def slerp(left: F64, right: F64, t: float) -> F64:
    """The textbook's formula on whole vectors."""
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    angle = math.acos(cosine)
    result: F64 = (math.sin((1 - t) * angle) * left + math.sin(t * angle) * right) / math.sin(angle)
    return result


def joined(rows: F64, raw: list[float] | F64) -> F64:
    """V_M by the chain's coefficients."""
    coefficients = chain(torch.from_numpy(rows @ rows.T), torch.tensor(np.array(raw), dtype=torch.float64))
    found: F64 = coefficients.numpy() @ rows
    return found


def test_three_vectors_step_by_step() -> None:
    """Weights 1, 2, 3: t_2 = 2 / (1 + 2), t_3 = 3 / (1.5 + 3)."""
    rows = np.array([[1.0, 0.2, 0.0], [0.1, 2.0, 0.3], [0.2, -0.5, 3.0]])
    expected = slerp(slerp(rows[0], rows[1], 2 / 3), rows[2], 2 / 3)
    np.testing.assert_allclose(joined(rows, [1.0, 2.0, 3.0]), expected, rtol=1e-12)


def test_equal_weights_meet_in_the_middle_each_time_so_order_matters() -> None:
    rows = np.eye(3)
    halfway = np.array([math.sqrt(0.5), math.sqrt(0.5), 0.0])
    np.testing.assert_allclose(joined(rows, [1, 1, 1]), slerp(halfway, rows[2], 0.5), rtol=1e-14)
    assert not np.allclose(joined(rows, [1, 1, 1]), joined(rows[::-1].copy(), [1, 1, 1]))


@FEW
@given(rows=drawn_vectors(), data=st.data())
def test_all_weight_on_one_returns_it_bit_by_bit(rows: F64, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(rows) - 1))
    np.testing.assert_array_equal(joined(rows, np.eye(len(rows))[chosen]), rows[chosen])


@FEW
@given(rows=drawn_vectors(2), data=st.data(), factor=st.sampled_from([1e-3, 7.0]))
def test_only_ratios_of_weights_matter_and_length_scales(rows: F64, data: st.DataObject, factor: float) -> None:
    rows = np.abs(rows) + 0.1
    weights = drawn_weights(data, len(rows))
    found = joined(rows, weights)
    np.testing.assert_allclose(joined(rows, weights * factor), found, rtol=1e-9)
    np.testing.assert_allclose(joined(rows * factor, weights), found * factor, rtol=1e-9)


@FEW
@given(row=drawn_vectors(1, 1), data=st.data(), count=st.integers(1, 5))
def test_equal_vectors_return_themselves(row: F64, data: st.DataObject, count: int) -> None:
    np.testing.assert_allclose(joined(np.repeat(row, count, 0), drawn_weights(data, count)), row[0], rtol=1e-12)


@pytest.mark.parametrize("angle", [1e-9, 1e-5, 9.9e-4, 1.1e-3, 0.5, 3.0])
def test_the_arc_at_even_speed_for_small_angles_too(angle: float) -> None:
    rows = np.array([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    np.testing.assert_allclose(
        joined(rows, [0.75, 0.25]), [math.cos(angle / 4), math.sin(angle / 4)], rtol=1e-9, atol=1e-15
    )


def test_opposite_and_zero_vectors_are_averaged() -> None:
    np.testing.assert_allclose(joined(np.array([[1.0, 2.0], [-2.0, -4.0]]), [1, 3]), [-1.25, -2.5], rtol=1e-15)
    np.testing.assert_allclose(joined(np.array([[0.0, 0.0], [2.0, 4.0]]), [1, 3]), [1.5, 3.0], rtol=1e-15)
    assert not joined(np.zeros((3, 2)), [1, 1, 1]).any()


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[1.0, 0.2, 0.0], [0.1, 2.0, 0.3], [0.2, -0.5, 3.0]]),  # wide
        np.array([[1.0, 0.0, 0.0], [1.0, 1e-4, 0.0], [1.0, 0.0, 2e-4]]),  # in the series
        np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]),  # parallel
        np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]),  # frozen
        np.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [0.3, 0.0, 1.0]]),  # opposite
    ],
    ids=["wide", "near", "parallel", "zero", "opposite"],
)
def test_derivatives_by_the_weights_are_finite_and_right(rows: F64) -> None:
    gram = torch.from_numpy(rows @ rows.T)
    raw = torch.tensor([0.7, 1.3, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda weights: chain(gram, weights), (raw,), eps=1e-6, atol=1e-7)


def test_the_rule_scales_the_chain_over_the_whole_model() -> None:
    rows = np.array([[1.0, 0.2, 0.0], [0.1, 2.0, 0.3], [0.2, -0.5, 3.0]])
    weights = np.array([0.5, 0.2, 0.3])
    space = Space.of_differences(np.pad(rows @ rows.T, ((1, 0), (1, 0))), whole=False)
    found = self_positioning(space, weights, {"scale": 1.5})
    np.testing.assert_allclose(found @ rows, 1.5 * joined(rows, weights), rtol=1e-14)


def test_every_tensor_gets_the_coefficients_of_the_whole_model() -> None:
    base = torch.zeros(2, dtype=torch.float64)
    members = [torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64)]
    vectors = MemoryVectors("w", members, base)
    vectors.whole_model = WholeModel(Space.of_gram(np.eye(2)))
    combine = METHOD.prepare(vectors, np.array([0.5, 0.5]), {"scale": 2.0})
    expected = 2 * math.sqrt(0.5) * (members[0] + members[1])
    torch.testing.assert_close(torch.cat(vectors.map(combine, METHOD.by_rows)), expected, rtol=1e-14, atol=1e-14)
    assert METHOD.needs == {"model_gram", "probe"} and METHOD.base == "required"
