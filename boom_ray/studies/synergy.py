"""Which datasets help each other: losses after joint and separate training → synergy → clusters.

PAPER.md section 2: the paper compares the loss of joint training on a pair of datasets with that of separate training,
takes the difference as a score of synergy or conflict, and clusters datasets by it hierarchically. Its normalisation,
number of clusters and linkage are not known; those here are our own choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

Matrix = npt.NDArray[np.float64]
Linkage = Literal["average", "complete", "single"]
SMALLEST = 0.01
"""Losses below this, in nats, count as this where they are divided by: they are as good as 0, and noise."""


@dataclass(frozen=True)
class Clustering:
    """Datasets grouped by synergy.

    Attributes:
        names: the D datasets.
        synergy: [D, D], see `synergy`.
        tree: [D - 1, 4], the linkage of scipy over distances (see `distances`); empty for one dataset.
        clusters: names of the datasets of each; clusters by their first dataset, datasets as in ``names``.
    """

    names: tuple[str, ...]
    synergy: Matrix
    tree: Matrix
    clusters: tuple[tuple[str, ...], ...]

    @property
    def order(self) -> list[int]:
        """The datasets' places so that those which are joined early stand together."""
        return [int(place) for place in hierarchy.leaves_list(self.tree)] if len(self.tree) else [0]


def synergy(separate: npt.ArrayLike, joint: npt.ArrayLike) -> Matrix:
    """How much two datasets gain from each other, as shares of their losses.

    S_ij = (L_i(i) - L_i(i, j)) / L_i(i) + (L_j(j) - L_j(i, j)) / L_j(j), where L_i(i) is the loss on dataset i after
    training on it alone and L_i(i, j) that after training on both, with as many steps on i. Positive is synergy,
    negative conflict; 0.1 could be five percent less loss on each.

    Args:
        separate: [D] the L_i(i), in nats.
        joint: [D, D] of L_i(i, j) in row i; the diagonal does not matter.

    Returns:
        [D, D], symmetric; NaN on the diagonal.
    """
    alone = np.asarray(separate, dtype=np.float64)[:, None]
    gains = (alone - np.asarray(joint, dtype=np.float64)) / np.maximum(alone, SMALLEST)
    found: Matrix = gains + gains.T
    np.fill_diagonal(found, np.nan)
    return found


def distances(found: Matrix) -> Matrix:
    """[D, D] of how much less synergy a pair has than the best one has; 0 on the diagonal."""
    apart: Matrix = np.nanmax(found) - found
    np.fill_diagonal(apart, 0.0)
    return apart


def cluster(names: Sequence[str], found: Matrix, count: int, linkage: Linkage = "average") -> Clustering:
    """Join the datasets that help each other most until so many clusters are left.

    Args:
        names: the D datasets.
        found: [D, D], see `synergy`.
        count: of clusters; with fewer datasets each is one.
        linkage: the distance of two clusters: the mean, largest or smallest over their pairs.

    Returns:
        The same for the same numbers; of equally distant pairs scipy takes the first.
    """
    size = len(names)
    tree: Matrix = np.empty((0, 4))
    if size > 1:
        tree = hierarchy.linkage(squareform(distances(found), checks=False), method=linkage)
    groups = {place: [place] for place in range(size)}
    for number in range(size - min(count, size)):
        one, other = (groups.pop(int(place)) for place in tree[number, :2])
        groups[size + number] = sorted([*one, *other])
    ordered = sorted(groups.values())
    return Clustering(tuple(names), found, tree, tuple(tuple(names[place] for place in group) for group in ordered))


def alike(found: Mapping[str, Clustering]) -> list[tuple[list[str], Clustering]]:
    """Names that have the same clusters, joined at the same distances, together; in the order of the first of each."""
    groups: list[tuple[list[str], Clustering]] = []
    for name, one in found.items():
        names = next((group for group, other in groups if _same(one, other)), None)
        if names is None:
            groups.append(([name], one))
        else:
            names.append(name)
    return groups


def _same(one: Clustering, other: Clustering) -> bool:
    return one.names == other.names and one.clusters == other.clusters and np.array_equal(one.tree, other.tree)
