"""Vectors, weights and members that the tests of methods draw."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from boom_ray.merging.methods.method import Method
from boom_ray.merging.tensors.space import F64
from tests.merging.merged import merged

FEW = settings(max_examples=25, deadline=None)
"""For properties that are checked for many methods each."""
NUMBERS = st.floats(-10, 10, allow_subnormal=False).map(lambda value: round(value, 6))


def drawn_vectors(least: int = 1, most: int = 5) -> st.SearchStrategy[F64]:
    """(M, n) float64."""
    shapes = st.tuples(st.integers(least, most), st.integers(1, 12))
    return shapes.flatmap(lambda shape: npst.arrays(np.float64, shape, elements=NUMBERS))


def drawn_weights(data: st.DataObject, count: int) -> F64:
    """(count,), sum 1, some of them zero."""
    raw = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), dtype=np.float64)
    assume(raw.sum() > 0)
    return raw / raw.sum()


def fine_tunes(
    count: int,
    shape: tuple[int, ...],
    drift: float = 0.3,
    common: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A base and members whose differences from it have the length ``drift`` per element and share a direction."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    base, shared = noise(), noise()
    members = [base + drift * (common * shared + (1 - common) * noise()) for _ in range(count)]
    return base.to(dtype), [member.to(dtype) for member in members]


def vector_of(method: Method, rows: F64, weights: F64 | list[float], **parameters: object) -> F64:
    """Merged vector of the rows of a matrix."""
    found: F64 = merged(method, list(torch.from_numpy(np.array(rows))), weights=weights, **parameters).numpy()
    return found


def polar(angles: list[float], lengths: list[float] | None = None) -> F64:
    """Vectors in the plane."""
    radii = np.ones(len(angles)) if lengths is None else np.array(lengths)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
