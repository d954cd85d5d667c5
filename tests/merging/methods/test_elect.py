"""Election of signs: who wins must not depend on rounding, and so not on the order of the members."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from boom_ray.merging.methods import consensus, sparse
from boom_ray.merging.methods.sparse import elect, majority
from boom_ray.merging.tensors.vectors import Strip
from tests.merging.merged import merged

BY_NAME = {method.name: method for method in (*sparse.METHODS, *consensus.METHODS)}
ELECTED = [name for name in BY_NAME if name.endswith("ties")]
TYPES = pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
GRID = npst.arrays(np.float64, st.tuples(st.integers(2, 6), st.just(24)), elements=st.integers(-6, 6).map(float))
"""Members whose differences often cancel exactly, once divided by 128."""
WEIGHTS = st.lists(st.integers(0, 4), min_size=6, max_size=6)


def exact_signs(rows, weights):
    """Signs of Σ w_i d_i in Python's integers."""
    columns = rows.astype(int).T.tolist()
    return [np.sign(sum(w * x for w, x in zip(weights, column, strict=True))) for column in columns]


def turned(name, rows, order, dtype, weights=None, **parameters):
    """The merge of the rows as they are, and with the members in another order."""
    tensors, labels = list(torch.from_numpy(rows / 128).to(dtype)), [f"m{i}" for i in range(len(rows))]
    base, shares = torch.zeros(rows.shape[1], dtype=dtype), weights or [1] * len(rows)
    places = [list(range(len(rows))), order]
    return [
        merged(
            BY_NAME[name],
            [tensors[i] for i in place],
            base,
            [shares[i] for i in place],
            [labels[i] for i in place],
            dtype=dtype,
            **parameters,
        )
        for place in places
    ]


@TYPES
@pytest.mark.parametrize("shift", [1.0, 128.0, 1e-6])
def test_members_that_cancel_elect_nobody_in_any_order(dtype, close, shift):
    for values in itertools.permutations((1.0, 2.0, -3.0)):
        rows = torch.tensor(values, dtype=dtype)[:, None] / shift
        assert elect(rows.clone(), [1 / 3] * 3, normalize=True).item() == 0
        assert elect(rows.clone(), [1 / 3] * 3, normalize=True, weighted=False).item() == 0
    for values, weights in itertools.product(itertools.permutations((0.1, 0.2, 0.7)), ([1, 1, 1], [3, 2, 5])):
        shares = np.array(weights) / sum(weights)
        rows = torch.tensor([value / share for value, share in zip(values, shares, strict=True)], dtype=dtype)
        both = torch.cat([rows, -rows])[:, None] / shift
        assert elect(both, [*shares / 2, *shares / 2], normalize=True).item() == 0


@TYPES
def test_a_small_majority_wins(dtype, close):
    """Ten thousand times the spacing of numbers is enough."""
    lead = 1e4 * torch.finfo(dtype).eps
    for sign in (1.0, -1.0):
        rows = torch.tensor([[1 + lead], [1.0], [-1.0], [-1.0]], dtype=dtype) * sign
        assert elect(rows, [0.25] * 4, normalize=True).item() == pytest.approx(sign, abs=2 * lead)


@TYPES
def test_signs_are_those_of_sums_and_zeros_stay_zeros(dtype, close):
    rows = torch.tensor([[0.0, 1.0, -1.0, 3e-30, 1.0], [0.0, 0.0, -1.0, -1e-30, -1.0]], dtype=dtype)
    assert majority(rows.clone()).tolist() == [0, 1, -1, 1, 0]
    assert majority(rows).dtype == dtype
    assert majority(torch.zeros(3, 0, dtype=dtype)).shape == (0,)


@settings(max_examples=60, deadline=None)
@given(rows=GRID, weights=WEIGHTS, data=st.data())
@TYPES
def test_the_sign_is_that_of_the_exact_sum(dtype, close, rows, weights, data):
    weights = weights[: len(rows)] if any(weights[: len(rows)]) else [1] * len(rows)
    expected = exact_signs(rows, weights)
    order = data.draw(st.permutations(range(len(rows))))
    total = sum(weights)
    found = elect(torch.from_numpy(rows[order] / 128).to(dtype), [weights[i] / total for i in order], normalize=True)
    assert found.sign().tolist() == expected


@settings(max_examples=15, deadline=None)
@given(rows=GRID, weights=st.none() | WEIGHTS.map(lambda given: [weight + 1 for weight in given]), data=st.data())
@pytest.mark.parametrize("name", ELECTED)
@pytest.mark.parametrize("density", [0.4, 1.0])
@TYPES
def test_the_order_of_members_decides_nothing(dtype, close, name, density, rows, weights, data):
    order = data.draw(st.permutations(range(len(rows))))
    shares = None if weights is None else weights[: len(rows)]
    first, second = turned(name, rows, order, dtype, shares, density=density)
    torch.testing.assert_close(second, first, rtol=close, atol=0)


@settings(max_examples=30, deadline=None)
@given(rows=GRID, data=st.data())
@pytest.mark.parametrize("select", [0.4, 1.0])
@TYPES
def test_nor_does_it_for_sce(dtype, close, select, rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    first, second = turned("sce", rows, order, dtype, select=select)
    torch.testing.assert_close(second, first, rtol=close, atol=0)


def test_equal_deviations_are_equal_in_any_order():
    """(1, 0, -2) and (1, 0, 3) have the same variance; in float32 the order of the members decided which was larger."""
    rows = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-2.0, 3.0]]) / 128
    for order in itertools.permutations(range(3)):
        one, other = consensus.deviation(Strip(0, rows[list(order)]))[0].float().tolist()
        assert one == other


@TYPES
def test_what_was_rescaled_still_cancels(dtype, close):
    """1 / 0.3 is no float: 1, 2 and -3 times it do not add up to 0."""
    rows = np.array([1.0, 2.0, -3.0])[:, None] * np.ones((1, 2000)) * np.linspace(0.1, 1, 2000)
    tensors, base = list(torch.from_numpy(rows).to(dtype)), torch.zeros(2000, dtype=dtype)
    kept = [
        merged(BY_NAME["dare_linear"], [tensor], base, labels=[label], dtype=dtype, density=0.3) != 0
        for tensor, label in zip(tensors, "abc", strict=True)
    ]
    everybody = kept[0] & kept[1] & kept[2]
    assert int(everybody.sum()) > 20
    found = merged(BY_NAME["dare_ties"], tensors, base, labels=list("abc"), dtype=dtype, density=0.3)
    assert not found[everybody].any() and bool((found[kept[0] & ~kept[1] & ~kept[2]] > 0).all())
