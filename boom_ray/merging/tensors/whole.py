"""What is known of the whole model, for methods that treat all tensors as one long vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from boom_ray.merging.tensors.magnitudes import Cut, Histograms, Search, keep_count
from boom_ray.merging.tensors.space import Space
from boom_ray.merging.tensors.vectors import Vectors


@dataclass(frozen=True)
class WholeModel:
    """Figures of all tensors that are merged, taken together.

    Attributes:
        space: inner products of the members' whole weight vectors, or of their differences from the base.
        cuts: (M,) what is kept of every member's differences, one threshold for all tensors.
    """

    space: Space | None = None
    cuts: tuple[Cut, ...] | None = None


def whole_cuts(all_vectors: Callable[[], Iterable[Vectors]], density: float) -> tuple[Cut, ...]:
    """Cuts that keep a share of every member's elements, counted over all tensors together.

    Reads the histograms of all tensors, then the tensors themselves once.

    Args:
        all_vectors: gives the vectors of every tensor, all with the same members in the same order; called twice.
        density: share of the elements that is kept.

    Returns:
        (M,) cuts; none for a model without tensors.

    Source: Yadav et al., "TIES-Merging", NeurIPS 2023, arXiv 2306.01708, section 4.1 (top-k of the task vector).
    """
    counted: Histograms | None = None
    for vectors in all_vectors():
        counted = vectors.histograms if counted is None else counted + vectors.histograms
    if counted is None:
        return ()
    numel = counted.counts.sum(axis=1).tolist()
    search = Search(counted, range(len(numel)), [keep_count(density, size) for size in numel])
    if search.open:
        for vectors in all_vectors():
            vectors.map(lambda strip: search.add(strip.rows))
    return tuple(search.cuts())


def whole_space(spaces: Iterable[Space]) -> Space:
    """Inner products of whole models from those of their tensors: sums, in the order given.

    Raises:
        ValueError: there is no tensor, or tensors describe their vectors in different bases.
    """
    held = list(spaces)
    if not held:
        raise ValueError("a model without tensors has no inner products")
    if any(not np.array_equal(space.transform, held[0].transform) for space in held):
        raise ValueError("inner products of tensors with and without base cannot be added")
    return Space(np.add.reduce([space.basis for space in held]), held[0].transform)
