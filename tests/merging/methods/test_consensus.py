import numpy as np
import pytest
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.methods.consensus import METHODS, deviation
from boom_ray.merging.tensors import vectors
from boom_ray.merging.tensors.vectors import MemoryVectors, Strip
from tests.merging.merged import merged
from tests.merging.methods.drawn import fine_tunes
from tests.merging.methods.oracle import mergekit

(SCE,) = METHODS


def literal_sce(d, select):
    """Select, calculate, erase on (M, n) differences, element by element."""
    variance = d.var(axis=0)
    count = max(1, int(select * np.count_nonzero(variance)))
    chosen = np.zeros(d.shape[1], dtype=bool)
    chosen[np.argsort(-variance)[:count]] = True
    kept = np.where(chosen, d, 0.0)
    weights = (kept**2).sum(axis=1) / (kept**2).sum()
    result = np.zeros(d.shape[1])
    for i, column in enumerate(kept.T):
        agreeing = [(w, x) for w, x in zip(weights, column, strict=True) if x and np.sign(x) == np.sign(column.sum())]
        if agreeing:
            result[i] = sum(w * x for w, x in agreeing) / sum(w for w, _ in agreeing)
    return result


@pytest.mark.parametrize("select", [0.02, 0.3, 0.77, 1.0])
def test_sce_read_literally(select):
    base, tensors = fine_tunes(4, (400,))
    tensors[1] = base + 3 * (tensors[1] - base)
    expected = literal_sce(np.stack([(tensor - base).numpy() for tensor in tensors]), select)
    found = merged(SCE, tensors, base, select=select, scale=0.6) - base
    np.testing.assert_allclose(found.numpy(), 0.6 * expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("select", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_sce_is_mergekits(select, dtype, tolerance):
    base, tensors = fine_tunes(4, (31, 29), dtype=dtype)
    found = merged(SCE, tensors, base, dtype=dtype, select=select)
    expected = mergekit("sce", tensors, base, select_topk=select)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_small_differences_are_weighed_as_large_ones():
    """mergekit takes weights for equal when mean squares add up to less than 1e-6: differences of 5e-4."""
    base, tensors = fine_tunes(3, (200,))
    tensors[0] = base + 5 * (tensors[0] - base)
    zero, d = torch.zeros_like(base), [tensor - base for tensor in tensors]
    large = merged(SCE, d, zero)
    for shrink in (2.0**-15, 2.0**-40):
        small = [difference * shrink for difference in d]
        torch.testing.assert_close(merged(SCE, small, zero), large * shrink, rtol=1e-12, atol=0)
        theirs = mergekit("sce", small, zero)
        assert float((theirs - large * shrink).norm() / (large * shrink).norm()) > 0.05


@pytest.mark.parametrize("select", [0.4, 1.0])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_strips_and_threads_change_nothing(select, threads, monkeypatch):
    base, tensors = fine_tunes(3, (41, 11), dtype=torch.bfloat16)
    expected = merged(SCE, tensors, base, dtype=torch.float32, select=select)
    monkeypatch.setattr(vectors, "STRIP", 64)
    found = merged(SCE, tensors, base, dtype=torch.float32, select=select, threads=threads)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(found, merged(SCE, tensors, base, dtype=torch.float32, select=select))


@pytest.mark.parametrize("select", [0.4, 1.0])
def test_the_order_of_members_changes_nothing(select):
    base, tensors = fine_tunes(4, (23, 11))
    found = merged(SCE, tensors, base, labels=["a", "b", "c", "d"], select=select)
    turned = merged(SCE, [tensors[i] for i in (2, 0, 3, 1)], base, labels=["c", "a", "d", "b"], select=select)
    torch.testing.assert_close(turned, found, rtol=1e-12, atol=1e-12)


def test_members_that_agree_everywhere():
    base, (tensor, *_) = fine_tunes(1, (20, 3))
    torch.testing.assert_close(merged(SCE, [tensor] * 3, base), tensor, rtol=1e-12, atol=1e-12)
    assert torch.equal(merged(SCE, [tensor] * 3, base, select=0.5), base)  # nothing to select: documented


@pytest.mark.parametrize("select", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(30, 4), (1,), (), (0, 4)])
def test_no_change_gives_the_base(select, shape):
    base = torch.full(shape, 0.3, dtype=torch.float64)
    assert torch.equal(merged(SCE, [base, base.clone()], base, select=select), base)


def test_one_element_is_always_selected():
    base = torch.zeros(1, dtype=torch.float64)
    members = [torch.tensor([value], dtype=torch.float64) for value in (3.0, 1.0)]
    assert merged(SCE, members, base, select=0.1).item() == pytest.approx((9 * 3 + 1 * 1) / 10)


def test_weights_are_its_own():
    base, tensors = fine_tunes(3, (5,))
    with pytest.raises(MergeError, match=r"cannot use merge.weights \[0.5, 0.25, 0.25\]"):
        merged(SCE, tensors, base, [2, 1, 1])


def test_deviation_ranks_as_the_variance():
    _, tensors = fine_tunes(5, (300,))
    rows = torch.stack(tensors)
    found = deviation(Strip(0, rows.clone()))
    torch.testing.assert_close(found[0].square() / 5, rows.var(dim=0, correction=0), rtol=1e-10, atol=0)
    thirds = torch.full((3, 4), 0.1, dtype=torch.float64)
    assert not deviation(Strip(0, thirds)).any()


def test_weights_are_noted_and_needs_follow_from_the_parameters():
    base = torch.zeros(2, dtype=torch.float64)
    tensors = [torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)]
    found = MemoryVectors("w", tensors, base)
    merged(SCE, tensors, base, vectors=found)
    assert found.notes["coefficients"] == [0.8, 0.2]
    assert SCE.needs_for({"select": 1.0}) == {"gram"}
    assert SCE.needs_for({"select": 0.3}) == frozenset()
