import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config.methods import PARAMETERS
from boom_ray.merging.methods.sparse import METHODS, elect, ranks
from boom_ray.merging.tensors import vectors
from boom_ray.merging.tensors.masks import uniform
from boom_ray.merging.tensors.vectors import MemoryVectors
from boom_ray.merging.tensors.whole import WholeModel, whole_cuts
from tests.merging.merged import merged
from tests.merging.methods.drawn import fine_tunes
from tests.merging.methods.oracle import mergekit

BY_NAME = {method.name: method for method in METHODS}
RANDOM = ["dare_linear", "dare_ties", "della_linear", "della_ties"]
WEIGHTS = [0.5, 0.3, 0.2, 0.0]


class Counted(MemoryVectors):
    """Counts how often a strip was loaded."""

    loads = 0

    def load(self, span):
        self.loads += 1
        return super().load(span)


def differences(tensors, base):
    return np.stack([(tensor - base).double().numpy() for tensor in tensors])


def literal_ties(d, density):
    """The TIES paper read literally, for equal weights: trim the top share, elect signs, disjoint mean."""
    flat = d.reshape(len(d), -1)
    trimmed = np.zeros_like(flat)
    for row, values in zip(trimmed, flat, strict=True):
        top = sorted(range(len(values)), key=lambda i: -abs(values[i]))[: int(density * len(values))]
        row[top] = values[top]
    merged = np.zeros(flat.shape[1])
    for i, column in enumerate(trimmed.T):
        gamma = np.sign(column.sum())
        agreeing = [value for value in column if np.sign(value) == gamma]
        merged[i] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return merged.reshape(d.shape[1:])


@pytest.mark.parametrize("density", [0.05, 0.2, 0.63, 1.0])
@pytest.mark.parametrize("shape", [(23, 17), (50,), (3, 4, 5)])
def test_ties_is_the_paper_when_weights_are_equal(density, shape):
    base, tensors = fine_tunes(5, shape)
    expected = literal_ties(differences(tensors, base), density)
    found = merged(BY_NAME["ties"], tensors, base, density=density, scale=0.7) - base
    np.testing.assert_allclose(found.numpy(), 0.7 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("density", [0.1, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_ties_is_mergekits(density, normalize, dtype, tolerance):
    base, tensors = fine_tunes(4, (31, 29), dtype=dtype)
    found = merged(
        BY_NAME["ties"], tensors, base, WEIGHTS, dtype=dtype, density=density, normalize=normalize, scale=0.8
    )
    expected = mergekit("ties", tensors, base, WEIGHTS, density=density, normalize=normalize, **{"lambda": 0.8})
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("density, gamma", [(0.9, 0.01), (0.5, 0.1), (0.9, 0.3), (0.2, 0.0)])
@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_are_mergekits(name, density, gamma):
    base, tensors = fine_tunes(4, (31, 29))
    extra = {"normalize": True} if name == "breadcrumbs_ties" else {}
    found = merged(BY_NAME[name], tensors, base, WEIGHTS, density=density, gamma=gamma, **extra)
    expected = mergekit(name, tensors, base, WEIGHTS, density=density, gamma=gamma, normalize=bool(extra))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_breadcrumbs_drop_the_largest_first():
    d = torch.arange(1.0, 11.0, dtype=torch.float64)
    base = torch.zeros(10, dtype=torch.float64)
    found = merged(BY_NAME["breadcrumbs"], [d], base, density=0.5, gamma=0.2)
    assert found.tolist() == [0, 0, 0, 4, 5, 6, 7, 8, 0, 0]
    full = merged(BY_NAME["breadcrumbs"], [d], base, density=0.9, gamma=0.2)  # only one can go: the largest
    assert full.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_breadcrumbs_between_ties_keep_their_share():
    """All magnitudes equal: what is drawn for the upper cut is part of what is drawn for the lower one."""
    few = torch.ones(50, dtype=torch.float64)
    assert merged(BY_NAME["breadcrumbs"], [few], 0 * few, density=0.02, gamma=0.4).sum() == 1
    base, d = torch.zeros(20_000, dtype=torch.float64), torch.ones(20_000, dtype=torch.float64)
    found = merged(BY_NAME["breadcrumbs"], [d], base, density=0.6, gamma=0.2)
    assert set(found.tolist()) == {0.0, 1.0}
    assert abs(float(found.sum()) - 12_000) < 5 * np.sqrt(20_000 * 0.6 * 0.4)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_dare_combines_as_mergekit_does(name, monkeypatch):
    """With our masks in its hands, and without its rescaling."""
    base, tensors = fine_tunes(4, (31, 29), dtype=torch.float32)
    sparsify = pytest.importorskip("mergekit.sparsify")
    labels = iter("0123")

    def bernoulli(tensor, density, rescale_norm=None):
        numbers = torch.from_numpy(uniform(5, "w", next(labels), 0, tensor.numel()))
        return tensor * (numbers < density).reshape(tensor.shape)

    monkeypatch.setattr(sparsify, "bernoulli", bernoulli)
    expected = mergekit(name, tensors, base, WEIGHTS, density=0.3, normalize="ties" in name, rescale=False)
    found = merged(BY_NAME[name], tensors, base, WEIGHTS, dtype=torch.float32, density=0.3, rescale=False, seed=5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ours, theirs", [("della_linear", "della_linear"), ("della_ties", "della")])
@pytest.mark.parametrize("shape", [(31, 29), (64,)])
def test_della_keeps_what_mergekit_keeps(ours, theirs, shape, monkeypatch):
    """Its probabilities, compared with our numbers, give our masks."""
    base, tensors = fine_tunes(4, shape, dtype=torch.float32)
    labels = iter("0123")

    def bernoulli(probabilities):
        numbers = torch.from_numpy(uniform(0, "w", next(labels), 0, probabilities.numel()))
        return (numbers.reshape(probabilities.shape) < probabilities).float()

    pytest.importorskip("mergekit")
    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    expected = mergekit(
        theirs, tensors, base, WEIGHTS, density=0.4, epsilon=0.3, normalize="ties" in ours, rescale=False
    )
    found = merged(BY_NAME[ours], tensors, base, WEIGHTS, dtype=torch.float32, density=0.4, epsilon=0.3, rescale=False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dare_divides_by_the_probability_and_mergekit_does_not():
    """64 elements, density 0.1: ours is 10 times the difference, mergekit's factor is a ratio of sums."""
    base = torch.zeros(64, dtype=torch.float64)
    tensor = torch.linspace(1, 20, 64, dtype=torch.float64)
    found = merged(BY_NAME["dare_linear"], [tensor], base, density=0.1)
    kept = found != 0
    assert 0 < int(kept.sum()) < 20
    torch.testing.assert_close(found[kept], 10 * tensor[kept], rtol=1e-12, atol=0)
    torch.manual_seed(1)
    theirs = mergekit("dare_linear", [tensor], base, [1.0], density=0.1, rescale=True)
    factors = theirs[theirs != 0] / tensor[theirs != 0]
    assert len(factors) and float((factors - 10).abs().min()) > 1


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_random_dropping_keeps_the_expectation(name):
    """Every row holds the same numbers, so columns average to them."""
    rows, values = 40_000, torch.tensor([0.5, -1.0, 2.0, -3.0, 0.25, 4.0], dtype=torch.float64)
    base = torch.zeros(rows, 6, dtype=torch.float64)
    found = merged(BY_NAME[name], [values.expand(rows, 6)], base, density=0.3)
    assert float((found == 0).double().mean()) == pytest.approx(0.7, abs=0.005)
    error = found.mean(dim=0) - values
    assert bool((error.abs() < 5 * found.std(dim=0) / rows**0.5).all())


def test_della_keeps_large_elements_more_often():
    """Probability by rank: 0.2, 0.3, ..., 0.8 around 0.5, and the factor is its reciprocal."""
    rows, values = 40_000, torch.tensor([3.0, -1, 7, 2, -6, 4, 5], dtype=torch.float64)
    base = torch.zeros(rows, 7, dtype=torch.float64)
    found = merged(BY_NAME["della_linear"], [values.expand(rows, 7)], base, density=0.5, epsilon=0.3)
    probability = 0.1 + values.abs() / 10
    assert bool(((found != 0).double().mean(dim=0) - probability).abs().max() < 5 * 0.5 / rows**0.5)
    kept = found[0] != 0
    torch.testing.assert_close(found[0][kept], (values / probability)[kept], rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(5000, 1), (1, 1), (), (1,)])
def test_della_of_rows_of_one_element(shape):
    """mergekit divides 0 by 0 here; the density is their probability."""
    base = torch.zeros(shape, dtype=torch.float64)
    found = merged(BY_NAME["della_linear"], [torch.ones_like(base)], base, density=0.25)
    assert set(found.reshape(-1).tolist()) <= {0.0, 4.0}
    if base.numel() > 1:
        assert abs(float((found != 0).double().mean()) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 5000)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_ranks_are_those_of_a_stable_sort(columns, seed):
    rows = torch.from_numpy(np.random.default_rng(seed).integers(-9, 9, (3, columns)).astype(np.float32))
    found = ranks(rows).numpy()
    for values, place in zip(rows.numpy(), found, strict=True):
        order = np.argsort(np.abs(values), kind="stable")
        expected = np.linspace(0, 1, columns) if columns > 1 else [0.5]
        np.testing.assert_allclose(place[order], expected, atol=1e-6)


def test_an_even_split_elects_nobody():
    """The paper's sign of 0 is 0 and selects nothing; mergekit takes it for positive."""
    base = torch.zeros(3, dtype=torch.float64)
    tensors = [torch.tensor([1.0, -2, 3], dtype=torch.float64), torch.tensor([-1.0, 2, 3], dtype=torch.float64)]
    assert merged(BY_NAME["ties"], tensors, base, density=1.0).tolist() == [0, 0, 3]
    assert mergekit("ties", tensors, base, [0.5, 0.5], density=1.0).tolist() == [1, 2, 3]


def test_a_member_of_weight_zero_does_not_vote():
    base = torch.zeros(1, dtype=torch.float64)
    tensors = [torch.tensor([value], dtype=torch.float64) for value in (1.0, -10.0, -10.0)]
    assert merged(BY_NAME["ties"], tensors, base, [1, 0, 0], density=1.0).item() == 1.0
    assert merged(BY_NAME["ties"], tensors, base, [8, 1, 1], density=1.0).item() == -10.0


def test_election_can_leave_weights_to_the_average():
    rows = torch.tensor([[1.0], [1.0], [-3.0]], dtype=torch.float64)
    weights = [0.45, 0.45, 0.1]
    assert elect(rows.clone(), weights, normalize=True).item() == 1.0
    assert elect(rows.clone(), weights, normalize=True, weighted=False).item() == pytest.approx(-3.0)
    assert elect(rows.clone(), weights, normalize=False, weighted=False).item() == pytest.approx(-0.3)


def test_ties_of_the_whole_model_is_ties_of_the_flattened_model():
    shapes = {"a": (20, 9), "b": (31,), "c": (6, 6)}
    model = {name: fine_tunes(3, shape, drift=0.1 * i, seed=i) for i, (name, shape) in enumerate(shapes.items(), 1)}
    flat_base = torch.cat([base.reshape(-1) for base, _ in model.values()])
    flat = [torch.cat([members[i].reshape(-1) for _, members in model.values()]) for i in range(3)]
    expected = merged(BY_NAME["ties"], flat, flat_base, density=0.3)
    cuts = whole_cuts(lambda: [MemoryVectors(name, ts, base) for name, (base, ts) in model.items()], 0.3)
    pieces = []
    for name, (base, tensors) in model.items():
        one = MemoryVectors(name, tensors, base)
        one.whole_model = WholeModel(cuts=cuts)
        pieces.append(merged(BY_NAME["ties"], tensors, base, vectors=one, density=0.3, scope="model").reshape(-1))
    torch.testing.assert_close(torch.cat(pieces), expected, rtol=1e-12, atol=1e-12)
    per_tensor = merged(BY_NAME["ties"], model["a"][1], model["a"][0], density=0.3)
    assert not torch.allclose(per_tensor.reshape(-1), pieces[0])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestAll:
    """What holds for every method of the family."""

    def test_no_change_gives_the_base(self, method):
        base = torch.randn(40, 5, dtype=torch.float64)
        assert torch.equal(merged(method, [base, base.clone(), base], base), base)

    @pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
    def test_no_elements(self, method, shape):
        base = torch.zeros(shape, dtype=torch.float64)
        assert merged(method, [base, base], base).shape == shape

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    def test_one_element(self, method, shape):
        base = torch.full(shape, 2.0, dtype=torch.float64)
        found = merged(method, [base + 1, base + 1], base)
        assert found.shape == shape and bool(torch.isfinite(found).all())
        if method.name not in RANDOM:  # at least one element of every tensor is kept
            assert found.item() == pytest.approx(3.0)

    def test_density_one_keeps_everything_and_reads_nothing(self, method):
        base, tensors = fine_tunes(3, (12, 7))
        found = Counted("w", tensors, base)
        complete = PARAMETERS[method.name].model_validate({"density": 1.0}).model_dump()
        combine = method.prepare(found, np.array([0.5, 0.3, 0.2]), complete)
        assert found.loads == 0 and method.needs_for(complete) == frozenset()
        rows = torch.from_numpy(differences(tensors, base).reshape(3, -1))
        weights = [0.5, 0.3, 0.2]
        linear = sum(weight * row for weight, row in zip(weights, rows, strict=True))
        expected = elect(rows.clone(), weights, normalize=True) if method.name.endswith("ties") else linear
        torch.testing.assert_close(combine(found.load((0, 84))), expected, rtol=1e-12, atol=1e-15)

    def test_one_member_with_all_the_weight_and_density_one_is_returned(self, method):
        base, tensors = fine_tunes(3, (12, 7))
        found = merged(method, tensors, base, [0, 1, 0], density=1.0)
        torch.testing.assert_close(found, tensors[1], rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("strip", [50, 64, 1000])
    def test_strips_and_threads_change_nothing(self, method, threads, strip, monkeypatch):
        base, tensors = fine_tunes(3, (41, 11), dtype=torch.bfloat16)
        expected = merged(method, tensors, base, dtype=torch.float32)
        monkeypatch.setattr(vectors, "STRIP", strip)
        assert torch.equal(merged(method, tensors, base, dtype=torch.float32, threads=threads), expected)

    def test_the_order_of_members_changes_nothing(self, method):
        base, tensors = fine_tunes(4, (23, 11))
        order, weights, labels = [2, 0, 3, 1], [0.1, 0.2, 0.3, 0.4], ["a", "b", "c", "d"]
        found = merged(method, tensors, base, weights, labels)
        members, shares, names = ([given[i] for i in order] for given in (tensors, weights, labels))
        turned = merged(method, members, base, shares, names)
        torch.testing.assert_close(turned, found, rtol=1e-12, atol=1e-12)

    def test_scale_and_sign_carry_over(self, method):
        base, tensors = fine_tunes(3, (23, 11))
        zero = torch.zeros_like(base)
        d = [tensor - base for tensor in tensors]
        found = merged(method, d, zero)
        torch.testing.assert_close(merged(method, d, zero, scale=2.5), 2.5 * found, rtol=1e-12, atol=0)
        torch.testing.assert_close(merged(method, [-x for x in d], zero), -found, rtol=1e-12, atol=0)
        small = merged(method, [x * 2.0**-40 for x in d], zero)
        torch.testing.assert_close(small, found * 2.0**-40, rtol=1e-12, atol=0)

    def test_sixteen_bits_in_are_computed_in_float32(self, method):
        base, tensors = fine_tunes(3, (23, 11), dtype=torch.bfloat16)
        narrow = merged(method, tensors, base, dtype=torch.float32)
        wide = merged(method, [tensor.double() for tensor in tensors], base.double())
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-6)

    def test_is_documented(self, method):
        for field in dataclasses.fields(method):
            value = getattr(method, field.name)
            assert not isinstance(value, str) or value.strip() == value != ""
        assert method.base == "required" and method.name in PARAMETERS


@pytest.mark.parametrize("name", RANDOM)
def test_masks_belong_to_seed_tensor_and_member(name):
    base, (tensor, *_) = fine_tunes(1, (30, 30))
    method = BY_NAME[name]
    found = merged(method, [tensor], base, labels=["m"])
    assert torch.equal(merged(method, [tensor], base, labels=["m"]), found)
    for other in ({"labels": ["n"]}, {"labels": ["m"], "name": "v"}, {"labels": ["m"], "seed": 1}):
        assert not torch.equal(merged(method, [tensor], base, **other), found)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 999))
def test_trimming_keeps_the_density(size, density, seed):
    base = torch.zeros(size, dtype=torch.float64)
    d = torch.from_numpy(np.random.default_rng(seed).permutation(size) + 1.0)
    found = merged(BY_NAME["ties"], [d], base, density=density)
    keep = int((found != 0).sum())
    assert keep == max(1, int(density * size + 1e-6))
    assert sorted(found[found != 0].tolist()) == list(range(size - keep + 1, size + 1))


def test_needs_follow_from_the_parameters():
    needs = BY_NAME["ties"].needs_for
    assert needs({"density": 0.2, "scope": "tensor"}) == {"magnitudes"}
    assert needs({"density": 0.2, "scope": "model"}) == {"model_magnitudes"}
    assert needs({"density": 1.0, "scope": "model"}) == frozenset()
    assert BY_NAME["breadcrumbs"].needs_for({"density": 0.2}) == {"magnitudes"}
    assert BY_NAME["dare_ties"].needs_for({"density": 0.2}) == frozenset()


def test_thresholds_are_noted():
    base = torch.zeros(4, dtype=torch.float64)
    found = MemoryVectors("w", [torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)], base)
    merged(BY_NAME["ties"], [base], base, vectors=found, density=0.5)
    assert found.notes["thresholds"] == [3.0]
