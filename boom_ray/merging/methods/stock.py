"""Model Stock: how far to go from the base towards the average follows from the angle between the members."""

from __future__ import annotations

import numpy as np
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Combine, Method, Parameters, weighted_sum
from boom_ray.merging.methods.rows import add_up_rows, row_grams
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Strip, Vectors


def model_stock(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the differences: the average, pulled to the base as far as the members disagree.

    With c the mean cosine between two members' differences from the base,

        t = M c / (1 + (M - 1) c),      merged = b + t · mean(d_i),

    the point nearest to the centre that the members are thought to be scattered around. Parallel differences give
    their average (t = 1), differences at right angles the base (t = 0).

    In that picture c is a ratio of squared lengths and cannot be negative; a negative estimate is noise around zero,
    and is taken as zero. mergekit follows the formula below zero, away from the average and without bound as c nears
    -1/(M - 1). A difference of length zero counts as at right angles to all others. mergekit's cosines are too small
    where the product of two lengths is below 1e-6 (biases and norms of lightly trained members); here they are not.

    Args:
        space: inner products of the differences from the base.
        weights: (M,), all equal: the method's geometry has no place for weights.
        parameters: ``granularity`` must be ``tensor``; rows have coefficients of their own, see `row_shares`.

    Returns:
        (M,) coefficients, t / M each.

    Raises:
        MergeError: weights that differ, or granularity row.

    Source: Jang, Yun and Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024, arXiv 2403.19522;
    the mean of the pairwise cosines for more than two members as in mergekit 0.1.5.

    Limits: two members or more. Members at wide angles (specialists, LoRA members) end close to the base.
    """
    _check_equal(weights)
    if parameters["granularity"] != "tensor":
        raise MergeError("model_stock with granularity row has coefficients per row, and none per tensor.")
    return np.repeat(row_shares(space.gram[None]), space.members)


def row_shares(grams: F64) -> F64:
    """The shares t / M of Model Stock for many sets of vectors at once.

    Args:
        grams: (R, M, M) inner products of the differences from the base, for each of R rows.

    Returns:
        (R,) coefficient of every member; see `model_stock`.
    """
    count = grams.shape[-1]
    lengths = np.sqrt(np.maximum(np.diagonal(grams, axis1=1, axis2=2), 0.0))
    products = lengths[:, :, None] * lengths[:, None, :]
    cosines = np.divide(grams, products, out=np.zeros_like(grams), where=products > 0)
    pairs = cosines[:, *np.triu_indices(count, 1)]
    mean = np.clip(pairs, -1.0, 1.0).mean(axis=1)
    mean = np.maximum(mean, 0.0)
    shares: F64 = mean / (1 + (count - 1) * mean)
    return shares


def prepare(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
    """`model_stock` on the whole tensor, or on every row by itself; rows need no pass beforehand.

    Args:
        vectors: (M, numel) differences from the base.
        weights: (M,), all equal.
        parameters: ``granularity``: ``tensor`` or ``row``.

    Returns:
        The combination; with granularity row it takes strips of whole rows only.

    Raises:
        MergeError: weights that differ.
    """
    if parameters["granularity"] == "tensor":
        return weighted_sum(model_stock, lambda own: own.space)(vectors, weights, parameters)
    _check_equal(weights)
    columns = vectors.columns

    def combine(strip: Strip) -> torch.Tensor:
        shares = row_shares(row_grams(strip.rows, columns))
        return add_up_rows(strip.rows, np.repeat(shares[:, None], len(strip.rows), axis=1))

    return combine


def _check_equal(weights: F64) -> None:
    if not np.allclose(weights, 1 / len(weights), rtol=1e-9, atol=0.0):
        told = ", ".join(f"{weight:.4g}" for weight in weights)
        raise MergeError(
            f"model_stock treats all members alike and cannot follow the weights {told}; set merge.weights to equal, "
            f"or choose another method."
        )


METHODS: tuple[Method, ...] = (
    Method(
        name="model_stock",
        summary="Base plus a share of the average difference that follows from the angles between the members.",
        formula="b + t · Σ d_i / M, t = M c / (1 + (M - 1) c), c the mean cosine between the d_i, at least 0",
        source="Jang et al., ECCV 2024, arXiv 2403.19522; more than two members as in mergekit 0.1.5",
        base="required",
        cost="granularity tensor: inner products, then one pass; granularity row: one pass",
        use="Two or three fine-tunes of one base on the same data, and no held-out data to choose weights with.",
        prepare=prepare,
        rule=model_stock,
        needs=frozenset({"gram"}),
        by_rows=True,
        least=2,
        equal_weights=True,
        needs_with=lambda parameters: frozenset() if parameters["granularity"] == "row" else frozenset({"gram"}),
    ),
)
"""Model Stock, for the registry."""
