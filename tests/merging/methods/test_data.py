"""Fisher and RegMean against closed forms and numpy's least squares; mergekit has neither."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config.methods import PARAMETERS
from boom_ray.errors import MergeError
from boom_ray.merging.methods.data import METHODS
from boom_ray.merging.tensors.vectors import STRIP, MemoryVectors, Pool, Span, Strip

FISHER, REGMEAN = METHODS
SEEDS = st.integers(0, 1000)


class Known(MemoryVectors):
    """Vectors in memory with what data says about them."""

    def __init__(self, tensors, importance=None, products=None, dtype=torch.float64, threads=1) -> None:
        super().__init__("w", tensors, dtype=dtype, pool=Pool(threads))
        self.given, self.told = importance, products

    def load(self, span: Span) -> Strip:
        strip = super().load(span)
        if self.given is None:
            return strip
        rows = torch.stack([one.reshape(-1)[span[0] : span[1]].to(self.dtype) for one in self.given])
        return Strip(strip.start, strip.rows, None, rows)

    def activations(self):
        return self.told


def merged(method, vectors: Known, weights=None, **parameters) -> torch.Tensor:
    raw = np.array([1.0] * vectors.members if weights is None else weights)
    complete = PARAMETERS[method.name].model_validate(parameters).model_dump()
    combine = method.prepare(vectors, raw / raw.sum(), complete)
    pieces = [piece.clone() for piece in vectors.map(combine, method.by_rows)]
    flat = torch.cat(pieces) if pieces else torch.zeros(0, dtype=vectors.dtype)
    return flat.reshape(vectors.shape)


def draws(seed: int, count: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_fisher_is_the_weighted_mean_by_importance(seed):
    tensors, importance = draws(seed, 3, 4, 5), [one**2 for one in draws(seed + 1, 3, 4, 5)]
    weights = [0.5, 0.2, 0.3]
    expected = sum(w * f * t for w, f, t in zip(weights, importance, tensors, strict=True)) / sum(
        w * f for w, f in zip(weights, importance, strict=True)
    )
    torch.testing.assert_close(merged(FISHER, Known(tensors, importance), weights), expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.floats(-40, 12))
def test_only_ratios_of_importance_matter(seed, exponent):
    tensors, importance = draws(seed, 3, 7), [one.abs() + 0.1 for one in draws(seed + 1, 3, 7)]
    scaled = [one * 10.0**exponent for one in importance]
    torch.testing.assert_close(
        merged(FISHER, Known(tensors, scaled, dtype=torch.float32)),
        merged(FISHER, Known(tensors, importance, dtype=torch.float32)),
        rtol=1e-4 if exponent < -37 else 1e-5,  # denormal float32 numbers have fewer digits
        atol=1e-2 if exponent < -37 else 1e-5,
    )


def test_elements_that_no_data_touches_are_averaged():
    tensors = draws(0, 2, 4)
    importance = [torch.tensor([0.0, 1.0, 0.0, 5e-324]), torch.tensor([0.0, 0.0, 2.0, 0.0])]
    found = merged(FISHER, Known(tensors, importance), [0.25, 0.75])
    assert float(found[0]) == pytest.approx(float(0.25 * tensors[0][0] + 0.75 * tensors[1][0]), rel=1e-12)
    assert float(found[1]) == float(tensors[0][1])
    assert float(found[2]) == pytest.approx(float(tensors[1][2]), rel=1e-12)
    only_without_weight = merged(FISHER, Known(tensors, importance), [0.0, 1.0])
    assert float(only_without_weight[1]) == pytest.approx(float(tensors[1][1]), rel=1e-12)


def test_tensors_without_statistics_are_averaged():
    tensors = draws(1, 3, 6, 2)
    expected = 0.2 * tensors[0] + 0.3 * tensors[1] + 0.5 * tensors[2]
    for method in METHODS:
        torch.testing.assert_close(merged(method, Known(tensors), [0.2, 0.3, 0.5]), expected, rtol=1e-12, atol=1e-12)


def inputs(seed: int, members: int, tokens: int, columns: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(tokens, columns)) * (1 + np.arange(columns)) for _ in range(members)]


def gram(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows / len(rows)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_regmean_without_shrinking_is_least_squares(seed):
    tensors, tokens = draws(seed, 3, 4, 6), inputs(seed, 3, 40, 6)
    weights = np.array([0.5, 0.2, 0.3])
    roots = np.sqrt(weights / 40)
    left = np.concatenate([root * rows for root, rows in zip(roots, tokens, strict=True)])
    right = np.concatenate(
        [root * rows @ one.numpy().T for root, rows, one in zip(roots, tokens, tensors, strict=True)]
    )
    expected = np.linalg.lstsq(left, right)[0].T
    vectors = Known(tensors, products=np.stack([gram(rows) for rows in tokens]))
    np.testing.assert_allclose(merged(REGMEAN, vectors, weights, shrink=1.0).numpy(), expected, rtol=1e-8, atol=1e-8)


def test_regmean_shrinks_what_is_off_the_diagonal():
    tensors, tokens = draws(3, 2, 4, 5), inputs(3, 2, 30, 5)
    products = np.stack([gram(rows) for rows in tokens])
    for shrink in (0.0, 0.7):
        shrunk = [shrink * one + (1 - shrink) * np.diag(np.diag(one)) for one in products]
        both = sum(one.numpy() @ part for one, part in zip(tensors, shrunk, strict=True))
        expected = both @ np.linalg.inv(sum(shrunk))
        found = merged(REGMEAN, Known(tensors, products=products), shrink=shrink)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stored", [np.float64, np.float32])
def test_where_data_does_not_decide_regmean_stays_at_the_average(stored):
    """Fewer tokens than columns, and a dead input: of all minimisers, the one nearest to the average."""
    tensors, tokens = draws(5, 2, 3, 8), inputs(5, 2, 3, 8)
    for rows in tokens:
        rows[:, 2] = 0
    products = np.stack([gram(rows) for rows in tokens]).astype(stored).astype(np.float64)
    found = merged(REGMEAN, Known(tensors, products=products), shrink=1.0).numpy()
    average = ((tensors[0] + tensors[1]) / 2).numpy()
    size = np.sqrt(np.concatenate(tokens).var(axis=0) + np.concatenate(tokens).mean(axis=0) ** 2)
    alive = size > 0
    left = np.concatenate(tokens)[:, alive] / size[alive]
    right = np.concatenate([rows @ (one.numpy() - average).T for rows, one in zip(tokens, tensors, strict=True)])
    expected = average.copy()
    expected[:, alive] += np.linalg.lstsq(left, right)[0].T / size[alive]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 if stored == np.float32 else 1e-9)
    np.testing.assert_allclose(found[:, 2], average[:, 2], rtol=1e-12)


def test_equal_members_return_themselves_exactly():
    one = draws(7, 1, 6, 5)[0]
    importance = [one**2 for one in draws(8, 3, 6, 5)]
    products = np.stack([gram(rows) for rows in inputs(9, 3, 4, 5)])
    for dtype in (torch.float32, torch.float64):
        vectors = Known([one] * 3, importance, products, dtype)
        for method in METHODS:
            assert torch.equal(merged(method, vectors, [0.1, 0.2, 0.7]), one.to(dtype))


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.permutations(range(3)))
def test_order_of_members_does_not_matter(seed, order):
    tensors, importance = draws(seed, 3, 4, 5), [one**2 for one in draws(seed + 1, 3, 4, 5)]
    products = np.stack([gram(rows) for rows in inputs(seed, 3, 9, 5)])
    weights = np.array([0.5, 0.2, 0.3])
    turned = Known([tensors[i] for i in order], [importance[i] for i in order], products[list(order)])
    for method in METHODS:
        one = merged(method, Known(tensors, importance, products), weights)
        torch.testing.assert_close(merged(method, turned, weights[list(order)]), one, rtol=1e-8, atol=1e-8)


def test_a_weight_on_a_corner_returns_that_member():
    tensors, importance = draws(11, 3, 4, 5), [one**2 + 0.1 for one in draws(12, 3, 4, 5)]
    products = np.stack([gram(rows) for rows in inputs(13, 3, 30, 5)])
    for method in METHODS:
        found = merged(method, Known(tensors, importance, products), [0.0, 1.0, 0.0])
        torch.testing.assert_close(found, tensors[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_members_and_threads_and_strips(dtype):
    shape = (2 * STRIP // 64 + 3, 64)
    tensors = [one.to(dtype) for one in draws(15, 2, *shape)]
    importance = [one.square().float() for one in draws(16, 2, *shape)]
    products = np.stack([gram(rows) for rows in inputs(17, 2, 100, 64)])
    for method in METHODS:
        exact = merged(method, Known(tensors, importance, products))
        found = [merged(method, Known(tensors, importance, products, torch.float32, n)) for n in (1, 3)]
        assert torch.equal(found[0], found[1])
        torch.testing.assert_close(found[0].double(), exact, rtol=1e-4, atol=1e-4)


def test_empty_one_element_and_single_member():
    for method in METHODS:
        assert merged(method, Known([torch.zeros(0, 3)] * 2)).shape == (0, 3)
        assert merged(method, Known([torch.tensor([2.0]), torch.tensor([4.0])])).tolist() == [3.0]
    one = draws(19, 1, 2, 3)
    products = gram(inputs(19, 1, 9, 3)[0])[None]
    assert torch.equal(merged(REGMEAN, Known(one, products=products)), one[0])
    assert torch.equal(merged(FISHER, Known(one, one)), one[0])


def test_activations_of_another_width_are_an_error():
    with pytest.raises(MergeError, match=r"of shape \[2, 3\] does not fit its activations of shape \[2, 4, 4\]"):
        merged(REGMEAN, Known(draws(0, 2, 2, 3), products=np.zeros((2, 4, 4))))
