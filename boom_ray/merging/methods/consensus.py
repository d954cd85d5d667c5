"""SCE: select the elements on which members differ most, calculate weights from them, erase minority signs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Combine, Method, Parameters
from boom_ray.merging.methods.sparse import elect, total
from boom_ray.merging.tensors.magnitudes import Cut, Search, find, histograms, keep_count, kept
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import Strip, Vectors

LABELS = ("deviation",)
"""Who draws among elements of equal deviation: all members together, whatever their order."""


def prepare(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
    """Select, calculate, erase: members weigh by the mean square of their selected differences.

    1. Select the ``select`` share of the elements, of those on which members differ at all, with the largest variance
       over members, per tensor and at least one; with ``select=1`` all elements.
    2. Calculate one weight per member and tensor: its mean square over the selected elements, relative to all members'.
    3. Erase, element by element, members whose sign is not that of the (unweighted) sum of the selected differences;
       the result is the weighted average of the others times ``scale``.

    Args:
        vectors: (M,) differences from the base.
        weights: (M,), equal: the method calculates its own.
        parameters: ``select``, ``scale``.

    Returns:
        (n,) merged difference of a strip; zero where nothing is selected or the sum is exactly 0.

    Raises:
        MergeError: the weights are not equal.

    Source: Wan et al., "FuseChat", 2024, arXiv 2408.07990 (SCE); details as in mergekit. mergekit, however, gives
    members equal weights when the mean squares of a tensor add up to less than 1e-6, as those of ordinary fine-tunes
    do, and shortens the result where agreeing weights do; here nothing depends on the size of the differences.

    Limits: the longest difference gets the largest weight, so one overtrained member can take over. Members that are
    all equal differ nowhere: with ``select`` below 1 the result is the base.
    """
    if not np.allclose(weights, weights[0], rtol=1e-9, atol=0):
        raise MergeError(
            f"sce calculates the weights of the members itself and cannot use merge.weights {weights.tolist()}; leave "
            f"them equal, or choose ties, which uses them."
        )
    chosen = _select(vectors, float(parameters["select"]))
    squares = np.diag(vectors.space.gram) if chosen is None else _squares(vectors, chosen)
    shares = squares / squares.sum() if squares.sum() > 0 else weights
    vectors.note("coefficients", shares.tolist())
    scale = float(parameters["scale"])

    def combine(strip: Strip) -> torch.Tensor:
        rows = strip.rows if chosen is None else _selected(strip, chosen, vectors)
        return elect(rows, shares.tolist(), normalize=True, weighted=False).mul_(scale)

    return combine


def deviation(strip: Strip) -> torch.Tensor:
    """(1, n) root of the sum of squared distances from the members' mean, float64: ranks as the variance does.

    Computed from distances from the first member, so that elements on which all agree get 0 and no rounding error. In
    float64, because ranks are those of float32: what the order of the members does to the last bits is rounded off.
    """
    rows = strip.rows.to(torch.float64, copy=True)
    rows.sub_(rows[0].clone())
    mean = total(rows).div_(len(rows))
    return total(rows.sub_(mean).square_()).sqrt_()[None]


def _select(vectors: Vectors, share: float) -> Sequence[Cut] | None:
    """The cut of the deviations; None when all elements are selected."""
    if share >= 1:
        return None
    counts = histograms(vectors, deviation, rows=1)
    search = Search(counts, [0], [keep_count(share, int(counts.nonzero[0]))])
    return find(search, vectors, LABELS, deviation)


def _selected(strip: Strip, chosen: Sequence[Cut], vectors: Vectors) -> torch.Tensor:
    return strip.rows.mul_(kept(deviation(strip), strip.start, chosen, vectors.name, LABELS))


def _squares(vectors: Vectors, chosen: Sequence[Cut]) -> F64:
    """(M,) sums of squares of the selected elements."""

    def square(strip: Strip) -> list[float]:
        rows = _selected(strip, chosen, vectors).double()
        sums: list[float] = rows.mul_(rows).sum(dim=1).tolist()
        return sums

    parts = vectors.map(square)
    sums: F64 = np.add.reduce(parts) if parts else np.zeros(vectors.members)
    return sums


def needs_with(parameters: Parameters) -> frozenset[str]:
    """Inner products give the mean squares of all elements; those of a selection take passes of their own."""
    return frozenset({"gram"}) if float(parameters["select"]) >= 1 else frozenset()


METHODS: tuple[Method, ...] = (
    Method(
        name="sce",
        summary="Weigh members by how far they moved from the base, on the elements on which they differ most.",
        formula="m: largest select of var_i d_i; w_i ∝ |m d_i|²; S = sign Σ m d_i; "
        "b + scale · Σ w_i m d_i / Σ w_i over i with sign(d_i) = S",
        source="Wan et al., FuseChat, 2024, arXiv 2408.07990; details as in mergekit",
        base="required",
        cost="the merge itself; with select below 1 three passes more",
        use="members of unlike strength, when no weights are known",
        prepare=prepare,
        needs=frozenset({"gram"}),
        least=2,
        equal_weights=True,
        needs_with=needs_with,
    ),
)
