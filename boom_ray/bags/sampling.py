"""Which examples a bag holds: keyed hashes of example ids, never the state of a random generator.

Membership is a function of (seed, bag, dataset, example id) alone. It does not depend on file order, sharding, block
or worker counts, and an example keeps its decision when a corpus grows around it, except at the boundary that keeps
the size exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boom_ray.artifacts.plan import I64
from boom_ray.hashing import U64, mix64, stream_key, unit_interval


@dataclass(frozen=True)
class BagRule:
    """A bag with every default resolved.

    Attributes:
        ratio: share of each dataset's pool, in (0, 1].
        seed: seed of the draw.
        draw: number of the draw among those of one ratio.
        replacement: ``none``, ``poisson`` or ``multinomial``.
        nested: draws of all ratios use one order, so that smaller bags are subsets of larger ones.
        complement: the bag is what the rule leaves out instead of what it takes.
        datasets: the datasets that it draws from; empty: all. Of each it holds what a bag of all datasets would.
    """

    ratio: float
    seed: int
    draw: int = 0
    replacement: Literal["none", "poisson", "multinomial"] = "none"
    nested: bool = False
    complement: bool = False
    datasets: tuple[str, ...] = ()

    def draws_from(self, dataset: str) -> bool:
        """Whether the bag may hold examples of a dataset."""
        return not self.datasets or dataset in self.datasets

    def draw_identity(self) -> dict[str, Any]:
        """The fields that say what is drawn of a dataset."""
        return {name: value for name, value in asdict(self).items() if name != "datasets"}

    def identity(self) -> dict[str, Any]:
        """All fields as JSON; the datasets only if not all are meant, so that keys of bags of all datasets stay."""
        return self.draw_identity() | ({"datasets": sorted(self.datasets)} if self.datasets else {})

    def key(self, dataset: str) -> int:
        """Stream key of the draw in one dataset; bags of different ratios are independent unless nested."""
        ratio = 0.0 if self.nested else self.ratio
        return stream_key("bag", self.seed, self.draw, repr(ratio), self.replacement, dataset)


def quotas(
    sizes: Mapping[str, int],
    temperature: float,
    caps: Mapping[str, int],
    max_examples: int | None,
    weights: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """How many examples of each dataset may enter bags.

    With n_d the size after its cap and w_d the weight, the quota is min(n_d, s·w_d·n_d^(1/T)). Without
    ``max_examples``, s makes the first dataset whole that can be, with equal weights the smallest (T = 1 keeps every
    size); with it, s makes the quotas sum to it as far as datasets have that many.

    Args:
        sizes: dataset to number of examples.
        temperature: T ≥ 1; larger is flatter.
        caps: dataset to its most examples.
        max_examples: most examples of all datasets, or None.
        weights: dataset to its weight, 1 where it is absent.

    Returns:
        dataset to quota, each at least 1 where the dataset is not empty.
    """
    capped = {name: min(size, caps.get(name, size)) for name, size in sizes.items()}
    factors = weights or {}
    powers = {name: factors.get(name, 1.0) * size ** (1 / temperature) for name, size in capped.items() if size}
    if not powers:
        return capped
    if max_examples is None:
        scale = min(capped[name] / power for name, power in powers.items())
    elif max_examples >= sum(capped.values()):
        return capped
    else:
        scale = _water_level(capped, powers, max_examples)
    return {
        name: min(size, max(1, math.floor(scale * powers[name] + 1e-9))) if size else 0 for name, size in capped.items()
    }


def _water_level(sizes: Mapping[str, int], powers: Mapping[str, float], total: int) -> float:
    """The s at which sum(min(n_d, s·p_d)) = total; datasets fill up in the order of n_d/p_d."""
    remaining, weight = float(total), sum(powers.values())
    for name in sorted(powers, key=lambda name: sizes[name] / powers[name]):
        scale = remaining / weight
        if sizes[name] > scale * powers[name]:
            return scale
        remaining -= sizes[name]
        weight -= powers[name]
    return math.inf


def pool_rows(ids: U64, quota: int, seed: int, dataset: str) -> I64:
    """Rows of the ``quota`` examples that all bags of a run draw from, ascending; shape (quota,)."""
    if quota >= len(ids):
        return np.arange(len(ids), dtype=np.int64)
    return np.sort(_smallest(mix64(ids, stream_key("pool", seed, dataset)), ids, quota))


def draw_rows(ids: U64, pool: I64, rule: BagRule, dataset: str) -> I64:
    """Rows of one dataset that a bag holds.

    Args:
        ids: (n,) uint64 ids of the dataset's examples.
        pool: (q,) rows to draw from, see `pool_rows`.
        rule: the bag.
        dataset: name of the dataset; draws in different datasets are independent.

    Returns:
        Ascending rows. Without replacement exactly round(ratio·q) distinct ones (at least 1), or for a complement the
        other q − round(ratio·q). ``poisson``: each row Poisson(ratio) times, so the size varies. ``multinomial``:
        exactly round(ratio·q) draws with replacement.
    """
    members = ids[pool]
    key = rule.key(dataset)
    hashes = mix64(members, key)
    count = bag_size(len(pool), rule.ratio)
    if rule.replacement == "poisson":
        counts = _poisson_counts(unit_interval(hashes), rule.ratio)
        return np.repeat(pool, counts)
    if rule.replacement == "multinomial":
        ranked = pool[np.lexsort((members, hashes))]
        draws = unit_interval(mix64(np.arange(count, dtype=np.uint64), stream_key(str(key), "draws")))
        return np.sort(ranked[(draws * len(pool)).astype(np.int64)])
    chosen = np.zeros(len(pool), dtype=bool)
    chosen[_smallest(hashes, members, count)] = True
    return pool[~chosen if rule.complement else chosen]


def bag_size(pool: int, ratio: float) -> int:
    """Examples that a ratio takes of a pool: rounded half up, at least 1 of a pool that is not empty."""
    return min(pool, max(1, math.floor(ratio * pool + 0.5))) if pool else 0


def _smallest(hashes: U64, ids: U64, count: int) -> I64:
    """Positions of the ``count`` smallest hashes; equal hashes are ordered by id, so position never decides."""
    if count >= len(hashes):
        return np.arange(len(hashes), dtype=np.int64)
    if count == 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(hashes, count - 1)[count - 1]
    candidates = np.flatnonzero(hashes <= threshold)
    order = np.lexsort((ids[candidates], hashes[candidates]))
    return candidates[order[:count]]


def _poisson_counts(uniform: npt.NDArray[np.float64], mean: float) -> I64:
    """Poisson(mean) counts by inversion of the distribution function; exact to the last tail of 1e-16."""
    term = math.exp(-mean)
    cumulative = [term]
    while 1 - cumulative[-1] > 1e-16 and len(cumulative) < 200:
        term *= mean / len(cumulative)
        cumulative.append(cumulative[-1] + term)
    return np.searchsorted(np.asarray(cumulative), uniform, side="right").astype(np.int64)
