"""What bags have in common and how much of the corpus they cover together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from boom_ray.artifacts.plan import I64


@dataclass(frozen=True)
class Overlap:
    """Sizes and overlaps of M bags.

    Attributes:
        names: M bag names.
        sizes: bag to distinct examples.
        shared: (M, M) share of the row's bag that is also in the column's bag; 1 on the diagonal.
        coverage: share of the corpus that is in at least one bag.
    """

    names: tuple[str, ...]
    sizes: dict[str, int]
    shared: npt.NDArray[np.float64]
    coverage: float


def overlap(bags: Mapping[str, Mapping[str, I64]], sizes: Mapping[str, int]) -> Overlap:
    """Compare bags.

    Args:
        bags: bag to dataset to ascending rows; repeated rows count once.
        sizes: dataset to its number of examples in the corpus.
    """
    names = tuple(bags)
    common = np.zeros((len(names), len(names)), dtype=np.float64)
    covered = 0
    for dataset, size in sizes.items():
        masks = _masks([bags[name].get(dataset) for name in names], size)
        for i, j in itertools.product(range(len(names)), repeat=2):
            common[i, j] += np.count_nonzero(masks[i] & masks[j])
        covered += int(masks.any(axis=0).sum())
    distinct = np.maximum(common.diagonal(), 1)
    return Overlap(
        names,
        {name: int(count) for name, count in zip(names, common.diagonal(), strict=True)},
        common / distinct[:, None],
        covered / max(1, sum(sizes.values())),
    )


def _masks(rows: Sequence[I64 | None], size: int) -> npt.NDArray[np.bool_]:
    masks = np.zeros((len(rows), size), dtype=np.bool_)
    for index, chosen in enumerate(rows):
        if chosen is not None:
            masks[index, chosen] = True
    return masks
