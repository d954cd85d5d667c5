import numpy as np
import pytest
import torch

from boom_ray.merging.tensors import vectors
from boom_ray.merging.tensors.magnitudes import EVERYTHING, kept
from boom_ray.merging.tensors.space import Space
from boom_ray.merging.tensors.vectors import MemoryVectors, Pool
from boom_ray.merging.tensors.whole import WholeModel, whole_cuts, whole_space

SHAPES = {"a": (40, 7), "b": (13,), "c": (300,), "d": (0, 4), "e": ()}


def model(seed=0, members=3, same=None):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for width, (name, shape) in enumerate(SHAPES.items(), start=1):
        base = torch.randn(shape, generator=generator, dtype=torch.float64)
        tensors = [base + torch.randn(shape, generator=generator, dtype=torch.float64) * width for _ in range(members)]
        found[name] = (tensors if same is None else [base + same for _ in range(members)], base)
    return found


def all_vectors(tensors, pool=None):
    return lambda: [MemoryVectors(name, members, base, pool=pool) for name, (members, base) in tensors.items()]


@pytest.mark.parametrize("density", [0.01, 0.2, 0.77, 1.0])
@pytest.mark.parametrize("threads", [1, 2])
def test_thresholds_are_those_of_the_flattened_model(density, threads, monkeypatch):
    monkeypatch.setattr(vectors, "STRIP", 50)
    tensors = model()
    with Pool(threads) as pool:
        source = all_vectors(tensors, pool)
        cuts = whole_cuts(source, density)
        pieces = [
            kept(strip.rows, strip.start, cuts, one.name, one.labels)
            for one in source()
            for strip in (one.load(span) for span in one.spans())
        ]
    mask = torch.cat(pieces, dim=1).numpy().astype(bool)
    flat = np.stack(
        [np.concatenate([(t[i] - b).float().numpy().ravel() for t, b in tensors.values()]) for i in range(3)]
    )
    keep = int(density * flat.shape[1])
    for row, values in zip(mask, flat, strict=True):
        expected = np.zeros(len(values), dtype=bool)
        expected[np.argsort(-np.abs(values))[:keep]] = True
        assert np.array_equal(row, expected)


def test_tensors_share_the_thresholds_not_the_density():
    """Differences of later tensors are larger here, so that they keep more of their elements."""
    tensors = model()
    cuts = whole_cuts(all_vectors(tensors), 0.2)
    shares = []
    for name in ("a", "c"):
        one = MemoryVectors(name, *tensors[name])
        rows = one.load((0, one.numel)).rows
        shares.append(float(kept(rows, 0, cuts, name, one.labels).mean()))
    assert shares[0] < 0.1 < 0.2 < shares[1]


def test_models_without_tensors_or_changes():
    assert whole_cuts(list, 0.2) == ()
    assert whole_cuts(all_vectors(model(same=0.0)), 0.2) == (EVERYTHING,) * 3


def test_spaces_of_tensors_add_up():
    tensors = model()
    found = whole_space(one.space for one in all_vectors(tensors)())
    flat = np.stack([np.concatenate([(t[i] - b).numpy().ravel() for t, b in tensors.values()]) for i in range(3)])
    np.testing.assert_allclose(found.gram, flat @ flat.T, rtol=1e-12)


def test_spaces_that_do_not_fit_are_refused():
    gram = np.eye(3)
    with pytest.raises(ValueError, match="with and without base"):
        whole_space([Space.of_differences(gram, whole=False), Space.of_differences(gram, whole=True)])
    with pytest.raises(ValueError, match="without tensors"):
        whole_space([])


def test_figures_are_optional():
    assert WholeModel() == WholeModel(space=None, cuts=None)
