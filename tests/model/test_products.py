"""oneDNN's products are those of float64 to float32's precision, and take the place of torch's only where they may."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from boom_ray.model import products
from boom_ray.model.products import FastProducts, has_fast_products

fast = pytest.mark.skipif(not has_fast_products(), reason="this processor has no vectors of 512 bits")
SIZES = st.integers(1, 70)


@pytest.fixture
def calls(monkeypatch):
    """How many products oneDNN was given."""
    found: list[torch.Size] = []
    compute = products._linear

    def counted(*arguments):
        found.append(arguments[0].shape)
        return compute(*arguments)

    has_fast_products()  # tries one, which is not to be counted
    monkeypatch.setattr(products, "_linear", counted)
    return found


@fast
@given(SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 2**32))
def test_products_are_those_of_float64(rows, inputs, outputs, has_bias, seed):
    random = torch.Generator().manual_seed(seed)
    values, weight, bias = (
        torch.randn(*shape, generator=random) for shape in ((2, rows, inputs), (outputs, inputs), (outputs,))
    )
    with torch.no_grad(), FastProducts():
        found = nn.functional.linear(values, weight, bias if has_bias else None)
    exact = values.double() @ weight.double().T + (bias.double() if has_bias else 0)
    bound = 1e-6 * (values.double().abs() @ weight.double().abs().T + bias.double().abs())  # of summing in float32
    assert found.shape == exact.shape
    assert ((found - exact).abs() <= bound).all()


@fast
def test_layers_of_a_model_are_replaced(calls):
    layer = nn.Linear(8, 4)
    values = torch.randn(3, 5, 8)
    expected = layer(values)
    with torch.no_grad(), FastProducts():
        found = layer(values)
        found_strided = layer(values.transpose(0, 1))
    assert calls == [(3, 5, 8), (5, 3, 8)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_strided, expected.transpose(0, 1))


def test_gradients_other_types_and_odd_shapes_are_left_to_torch(calls):
    layer = nn.Linear(8, 4)
    with FastProducts():
        layer(torch.randn(3, 8)).sum().backward()
        with torch.no_grad():
            assert layer.bfloat16()(torch.randn(3, 8).bfloat16()).dtype == torch.bfloat16
            assert layer.double()(torch.randn(3, 8).double()).dtype == torch.float64
            assert layer.float()(torch.randn(8)).shape == (4,)
            assert layer(torch.randn(0, 8)).shape == (0, 4)
    assert layer.weight.grad is not None
    assert not calls


def test_without_the_operator_torch_computes(monkeypatch, calls):
    monkeypatch.setattr(products, "has_fast_products", lambda: False)
    with torch.no_grad(), FastProducts():
        assert nn.Linear(8, 4)(torch.randn(3, 8)).shape == (3, 4)
    assert not calls


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT", "ZVECTOR"])
def test_other_processors_do_not_gain(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not has_fast_products.__wrapped__()


@pytest.mark.parametrize("error", [AttributeError("gone"), RuntimeError("schema"), TypeError("arguments")])
def test_an_operator_that_has_changed_is_not_relied_on(monkeypatch, error):
    def refuse(*arguments):
        raise error

    monkeypatch.setattr(products, "_linear", refuse)
    assert not has_fast_products.__wrapped__()
