"""SLERP and NuSLERP of two members: mergekit where it does not average, and arcs in the plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Method
from boom_ray.merging.methods.spheres import METHODS
from boom_ray.merging.tensors.space import Space
from boom_ray.merging.tensors.vectors import STRIP
from tests.merging.merged import merged
from tests.merging.methods.drawn import fine_tunes, polar, vector_of
from tests.merging.methods.oracle import mergekit

BY_NAME = {method.name: method for method in METHODS}
PAIRS = [BY_NAME["slerp"], BY_NAME["nuslerp"]]
DTYPES = pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
EVERY_PAIR = pytest.mark.parametrize("method", PAIRS, ids=lambda method: method.name)


@DTYPES
def test_slerp_is_mergekits_where_it_does_not_average(dtype: torch.dtype, close: float) -> None:
    _, members = fine_tunes(2, (40, 30), drift=1.0, dtype=dtype)
    for t in (0.0, 0.3, 1.0):
        expected = mergekit("slerp", members[1:], members[0], t=t)
        found = merged(BY_NAME["slerp"], members, weights=[1 - t, t], dtype=dtype)
        torch.testing.assert_close(found, expected, rtol=close, atol=close)


@DTYPES
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("shape", [(40, 30), (7,), (3, 4, 5)])
@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_nuslerp_is_mergekits(
    dtype: torch.dtype, close: float, with_base: bool, shape: tuple[int, ...], granularity: str
) -> None:
    base, members = fine_tunes(2, shape, dtype=dtype)
    start = base if with_base else None
    flatten = {"nuslerp_flatten": granularity == "tensor"}
    expected = mergekit("nuslerp", members, start, [0.3, 0.9], nuslerp_row_wise=False, **flatten)
    found = merged(BY_NAME["nuslerp"], members, start, [0.3, 0.9], dtype=dtype, granularity=granularity)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


@EVERY_PAIR
@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-4, 0.02, 1.0, math.pi / 2, 3.0])
@pytest.mark.parametrize("t", [0.25, 0.5, 0.9])
def test_slerp_walks_along_the_arc_at_even_speed(method: Method, angle: float, t: float) -> None:
    found = vector_of(method, polar([0.0, angle]), [1 - t, t])
    np.testing.assert_allclose(found, polar([t * angle])[0], rtol=1e-12, atol=1e-16)


def test_slerp_of_near_parallel_vectors_is_not_the_average_that_mergekit_makes_of_it() -> None:
    """At 0.02 radians, cosine 0.9998, the arc's middle is 5e-5 longer than the chord's."""
    pair = list(torch.from_numpy(polar([0.0, 0.02])))
    chord = mergekit("slerp", pair[1:], pair[0], t=0.5)
    assert float(chord.norm()) == pytest.approx(math.cos(0.01), rel=1e-15)
    assert float(merged(BY_NAME["slerp"], pair).norm()) == pytest.approx(1.0, rel=1e-15)


@EVERY_PAIR
@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_opposite_or_zero_vectors_are_averaged(method: Method, granularity: str) -> None:
    parameters = {"granularity": granularity} if method.name == "nuslerp" else {}
    for first, second in ([1.0, 2.0], [-2.0, -4.0]), ([0.0, 0.0], [3.0, 4.0]), ([3.0, 4.0], [0.0, 0.0]):
        found = vector_of(method, np.array([first, second]), [0.25, 0.75], **parameters)
        np.testing.assert_array_equal(found, 0.25 * np.array(first) + 0.75 * np.array(second))
    assert not vector_of(method, np.zeros((2, 5)), [0.5, 0.5], **parameters).any()


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("shape", [(5, STRIP // 2 - 3), (3, STRIP + 5), (STRIP + 9, 2)])
def test_nuslerp_of_rows_is_slerp_of_every_row_whatever_the_strips(shape: tuple[int, ...], with_base: bool) -> None:
    base, members = fine_tunes(2, shape)
    start = base if with_base else None
    found = merged(BY_NAME["nuslerp"], members, start, [0.3, 0.7], granularity="row")
    for row in (0, 1, shape[0] - 1):
        expected = merged(
            BY_NAME["slerp"], [one[row] for one in members], start[row] if with_base else None, [0.3, 0.7]
        )
        torch.testing.assert_close(found[row], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_nuslerp_is_the_same_with_any_number_of_threads(granularity: str) -> None:
    _, members = fine_tunes(2, (7, STRIP // 2 - 3), dtype=torch.float32)
    one, *others = (
        merged(BY_NAME["nuslerp"], members, dtype=torch.float32, threads=threads, granularity=granularity)
        for threads in (1, 2, 3)
    )
    assert all(torch.equal(one, other) for other in others)


def test_nuslerp_knows_what_it_needs_and_has_no_coefficients_per_tensor_for_rows() -> None:
    method = BY_NAME["nuslerp"]
    assert method.needs_for({"granularity": "row"}) == frozenset()
    assert method.needs_for({"granularity": "tensor"}) == {"gram"}
    assert method.rule is not None
    with pytest.raises(MergeError, match="granularity row"):
        method.rule(Space.of_gram(np.eye(2)), np.array([0.5, 0.5]), {"granularity": "row"})
