"""Merge methods as pure functions of small float64 arrays: no files, no tensors, no Ray.

All methods here are *coefficient methods*: for every tensor the merged value is a weighted sum of the members' vectors,

    merged = Σ a_i t_i                      (whole weights)
    merged = base + Σ a_i (t_i - base)      (differences from the base, also called task vectors)

and the coefficients a follow from the members' weights and, at most, from the M x M Gram matrix of the vectors of that
tensor, G_ij = <v_i, v_j>. So a tensor of any size is described by M² numbers, and merging needs one pass for them and
one weighted sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Parameters = Mapping[str, float]
Rule = Callable[[F64, F64, Parameters], F64]

OPPOSED = 1e-6
"""Below this length of the weighted mean of unit vectors there is no mean direction that float64 could resolve."""


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        name: name in ``merge.method``.
        summary: one sentence for people who choose a method.
        source: paper, and code where it differs from the paper.
        base: whether vectors are differences from the base model (``required``), whole weights (``ignored``), or
            either, as ``merge.base`` says (``optional``).
        needs_gram: whether the coefficients depend on the tensors; if not, the statistics pass is skipped.
        coefficients: (M, M) Gram matrix, (M,) weights of sum 1, parameters -> (M,) coefficients.
        parameters: name to meaning of the fields of `MergeConfig` that the method reads beside its weights.
    """

    name: str
    summary: str
    source: str
    base: Literal["ignored", "required", "optional"]
    needs_gram: bool
    coefficients: Rule
    parameters: Mapping[str, str] = field(default_factory=dict)


def linear(gram: F64, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the weighted average: the weights themselves.

    Args:
        gram: not read.
        weights: (M,), sum 1.
        parameters: none.

    Returns:
        (M,) coefficients.

    Source: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482 (uniform soup: equal weights).
    """
    return weights


def task_arithmetic(gram: F64, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the differences: the weights times ``scale``.

    With scale 1 this is `linear`; larger scales overshoot the average, smaller ones stay near the base. mergekit does
    not normalise the weights by default; here they always have sum 1, so that ``scale`` alone sets the length.

    Args:
        gram: not read.
        weights: (M,), sum 1.
        parameters: ``scale``, the lambda of the paper.

    Returns:
        (M,) coefficients of the differences from the base.

    Source: Ilharco et al., "Editing models with task arithmetic", ICLR 2023, arXiv 2212.04089.
    """
    return weights * parameters["scale"]


def multislerp(gram: F64, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of Multi-SLERP as mergekit implements it: the weighted mean direction at the weighted mean length.

    mergekit (merge_methods/multislerp.py, 0.1.5) scales every vector to a unit vector u_i, takes their normalised
    weighted mean m, projects each u_i on the tangent space at m, adds the projections v_i = u_i - <u_i, m> m with the
    same weights and moves from m along the sum. That sum is zero: Σ w_i u_i is parallel to m, so projecting it on the
    space orthogonal to m leaves nothing. What remains is the closed form computed here, with n_i = ||v_i||,

        merged = (Σ w_i n_i) · unit(Σ w_i v_i / n_i).

    On whole weights (``base: none``) fine-tunes of one base have cosines near 1 and the result is nearly the weighted
    average, rescaled to the members' mean length. On differences (``base: base``) the update is longer than
    the averaged one, by about 1/||mean unit vector||, which is another method in effect. The formula printed in the
    BOOM paper (arXiv 2602.05787) uses the true logarithm on the sphere instead of a projection; it is a different
    method again and not this one.

    A vector of length zero has no direction and adds nothing, as in mergekit. If all are zero the result is zero, so
    a tensor that no member has changed stays the base's (mergekit raises an error for three or more members). If the
    directions cancel there is no mean direction; the result is then the weighted average.

    Args:
        gram: (M, M), inner products of the vectors.
        weights: (M,), sum 1.
        parameters: none.

    Returns:
        (M,) coefficients.
    """
    norms = np.sqrt(np.diag(gram))
    used = (weights > 0) & (norms > 0)
    if not used.any():
        return np.zeros_like(weights)
    directions = np.divide(weights, norms, out=np.zeros_like(weights), where=used)
    length = math.sqrt(max(float(directions @ gram @ directions), 0.0))
    if length <= OPPOSED:
        return weights
    coefficients: F64 = directions * (float(weights @ norms) / length)
    return coefficients


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="linear",
            summary="Weighted average of the members' weights (model soup).",
            source="arXiv 2203.05482",
            base="ignored",
            needs_gram=False,
            coefficients=linear,
        ),
        Method(
            name="task_arithmetic",
            summary="Base plus scale times the weighted average of the members' differences from it.",
            source="arXiv 2212.04089",
            base="required",
            needs_gram=False,
            coefficients=task_arithmetic,
            parameters={"scale": "lambda, the length of the merged difference; 1 is the weighted average"},
        ),
        Method(
            name="multislerp",
            summary="Weighted mean direction at the weighted mean length, of weights or of differences from the base.",
            source="mergekit 0.1.5 multislerp, used by arXiv 2602.05787; closed form derived in `multislerp`",
            base="optional",
            needs_gram=True,
            coefficients=multislerp,
        ),
    )
}
