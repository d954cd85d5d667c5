"""Means on the sphere: directions and lengths of the vectors are averaged apart.

All of them are combinations of the M vectors whose coefficients follow from inner products, so a tensor of any size is
merged by M numbers. Angles come from `Space.angle`, never from the arc cosine of an inner product, which is blind below
1e-8; so no threshold sends near-parallel members to the plain average, as the cosine 0.9995 does in mergekit's SLERP.

What has no direction is treated alike everywhere. A vector of length zero (a tensor that this member did not change)
adds no direction, but its length counts in the mean length. If the directions cancel, or a member is opposite the mean,
to within `OPPOSED`, no shortest path on the sphere is distinguished, and the result is the weighted average.
"""

from __future__ import annotations

import math

import numpy as np

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Combine, Method, Parameters, weighted_sum
from boom_ray.merging.methods.rows import add_up_rows, row_angles
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Vectors

OPPOSED = 1e-6
"""Radians (or length of a mean of unit vectors) below which float64 cannot tell where a path on the sphere leads."""


def slerp(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of spherical linear interpolation between two vectors.

    With θ the angle between them and t the second weight,

        merged = sin((1 - t) θ) / sin θ · v_1 + sin(t θ) / sin θ · v_2.

    The coefficients apply to the vectors themselves and not to their directions, as in mergekit; the length of the
    result is the mean length only if both are equally long. As θ goes to zero the coefficients go to 1 - t and t
    smoothly, so there is no threshold; mergekit's ``slerp`` averages as soon as the cosine exceeds 0.9995, as that of
    most fine-tunes of one base does. If one vector is zero, or the two are opposite, it is the weighted average.

    Args:
        space: inner products of two vectors.
        weights: (2,), sum 1; t is the second.
        parameters: none.

    Returns:
        (2,) coefficients.

    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.

    Limits: two members.
    """
    first, second = np.eye(2)
    return slerp_shares(np.array(space.angle(first, second)), weights)


def nuslerp(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of NuSLERP with granularity tensor: those of `slerp`, with t from the normalised weights.

    In mergekit the two methods differ: ``slerp`` takes t and averages near-parallel vectors, ``nuslerp`` takes weights,
    may work on differences and averages only vectors that are parallel to rounding. Here `slerp` does all
    of that, and what NuSLERP adds is granularity row, see `prepare_nuslerp`.

    Args:
        space: inner products of two vectors.
        weights: (2,), sum 1.
        parameters: ``granularity`` must be ``tensor``.

    Returns:
        (2,) coefficients.

    Raises:
        MergeError: granularity row.

    Source: mergekit 0.1.5, merge_methods/nuslerp.py.

    Limits: two members.
    """
    if parameters["granularity"] != "tensor":
        raise MergeError("nuslerp with granularity row has coefficients per row, and none per tensor.")
    return slerp(space, weights, parameters)


def slerp_shares(angles: F64, weights: F64) -> F64:
    """Coefficients of `slerp` for many angles at once.

    Args:
        angles: (...) radians, 0 to π.
        weights: (2,), sum 1.

    Returns:
        (..., 2).
    """
    sines = np.sin(angles)[..., None]
    flat = (angles == 0) | (angles > math.pi - OPPOSED)
    shares = np.broadcast_to(weights, (*angles.shape, 2)).copy()
    np.divide(np.sin(angles[..., None] * weights), sines, out=shares, where=~flat[..., None])
    return shares


def prepare_nuslerp(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
    """`nuslerp` on the whole tensor, or on every row by itself; rows need no pass beforehand.

    A row is what the last dimension holds: the weights of one output neuron of a (out, in) matrix; a vector is one row.
    mergekit calls this ``nuslerp_flatten: false`` with ``nuslerp_row_wise: false``; its ``nuslerp_row_wise: true`` cuts
    along the first dimension, so that every column is interpolated by itself.

    Args:
        vectors: (2, numel) whole weights or differences from the base.
        weights: (2,), sum 1.
        parameters: ``granularity``: ``tensor`` or ``row``.

    Returns:
        The combination; with granularity row it takes strips of whole rows only.
    """
    if parameters["granularity"] == "tensor":
        return weighted_sum(nuslerp, lambda own: own.space)(vectors, weights, parameters)
    columns = vectors.columns
    return lambda strip: add_up_rows(strip.rows, slerp_shares(row_angles(strip, columns), weights))


def multislerp(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of Multi-SLERP as mergekit implements it: the weighted mean direction at the weighted mean length.

    mergekit (merge_methods/multislerp.py, 0.1.5) scales every vector to a unit vector u_i, takes their normalised
    weighted mean m, projects each u_i on the tangent space at m, adds the projections u_i - <u_i, m> m with the
    same weights and moves from m along the sum. That sum is zero: Σ w_i u_i is parallel to m, so projecting it on the
    space orthogonal to m leaves nothing. What remains is the closed form computed here, with n_i = ||v_i||,

        merged = (Σ w_i n_i) · unit(Σ w_i v_i / n_i).

    On whole weights (``base: none``) fine-tunes of one base have cosines near 1 and the result is nearly the weighted
    average, rescaled to the members' mean length. On differences (``base: base``) the update is longer than
    the averaged one, by about 1/||mean unit vector||, which is another method in effect. The formula printed in the
    BOOM paper (arXiv 2602.05787) uses the true logarithm on the sphere instead of a projection; it is a different
    method again: `riemannian_step`.

    If all vectors are zero so is the result: a tensor that no member has changed stays the base's (mergekit raises an
    error for three or more members).

    Args:
        space: inner products of the vectors.
        weights: (M,), sum 1.
        parameters: none.

    Returns:
        (M,) coefficients.

    Source: mergekit 0.1.5, merge_methods/multislerp.py, and the derivation above; used by arXiv 2602.05787.

    Limits: on differences of members with little in common the update is long; look at the scores before choosing it.
    """
    return _at_mean_length(space, weights, 0, 0.0)


def riemannian_step(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the formula in the BOOM paper: one step towards the mean on the sphere, with the true logarithm.

    With n_i = ||v_i||, u_i = v_i / n_i, m the normalised weighted mean of the u_i and θ_i the angle between u_i and m,

        merged = (Σ w_i n_i) · exp_m(Σ w_i log_m(u_i)),
        log_m(u_i) = θ_i / sin θ_i · (u_i - cos θ_i m),      exp_m(s) = cos ||s|| m + sin ||s|| / ||s|| · s.

    It is the first iteration of `karcher`. mergekit's Multi-SLERP, which the paper's models were merged with, has no
    logarithm in it and stays at m: `multislerp`. The step is of the order of the third power of the angles, so on whole
    weights of fine-tunes of one base the two cannot be told apart, and for two equal weights they are the same.

    Args:
        space: inner products of the vectors.
        weights: (M,), sum 1.
        parameters: none.

    Returns:
        (M,) coefficients.

    Source: Zhang et al., "Bagging-Based Model Merging for Robust General Text Embeddings", arXiv 2602.05787, the merge
    formula.

    Limits: as `multislerp`.
    """
    return _at_mean_length(space, weights, 1, 0.0)


def karcher(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the Karcher mean: the direction with the least weighted sum of squared angles, at mean length.

    Starting at the normalised weighted mean, the step of `riemannian_step` is repeated until it is shorter than
    ``tolerance``, or nothing but rounding. mergekit's has equal weights only, ten steps, and angles from an arc cosine.

    Args:
        space: inner products of the vectors.
        weights: (M,), sum 1.
        parameters: ``iterations``, the most steps; ``tolerance`` in radians.

    Returns:
        (M,) coefficients.

    Source: Karcher, "Riemannian center of mass and mollifier smoothing", CPAM 1977; for merging arXiv 2603.04972.

    Limits: the mean is unique if all directions lie within a right angle of one point; else the result is a stationary
    point near the mean direction. If the steps run out, the last point is returned.
    """
    return _at_mean_length(space, weights, int(parameters["iterations"]), float(parameters["tolerance"]))


def _at_mean_length(space: Space, weights: F64, steps: int, tolerance: float) -> F64:
    """The mean direction after some steps towards the Karcher mean, times the weighted mean length; (M,)."""
    norms = space.norms
    used = (weights > 0) & (norms > 0)
    if used.sum() < 2:
        return np.where(used, weights, 0.0)  # w n · v / n, without rounding
    units = np.zeros((len(weights), len(weights)))
    units[used, used] = 1 / norms[used]
    shares = np.where(used, weights, 0.0) / weights[used].sum()
    mean = shares @ units
    length = space.norm(mean)
    if length <= OPPOSED:
        return weights
    mean = mean / length
    if steps > 0:
        found = _walk(space, units[used], shares[used], mean, steps, tolerance)
        if found is None:
            return weights
        mean = found
    result: F64 = mean * float(weights @ norms)
    return result


def _walk(space: Space, units: F64, shares: F64, mean: F64, steps: int, tolerance: float) -> F64 | None:
    """Steps on the sphere towards the Karcher mean; all vectors are told as combinations of the M.

    Returns:
        (M,) a unit vector; None if one of the units is opposite the mean, where the logarithm has no direction.
    """
    before = math.inf
    for _ in range(steps):
        angles = np.array([space.angle(unit, mean) for unit in units])
        if angles.max() > math.pi - OPPOSED:
            return None
        stretch = np.divide(angles, np.sin(angles), out=np.ones_like(angles), where=angles > 0)
        tangent = (shares * stretch) @ (units - np.cos(angles)[:, None] * mean)
        size = space.norm(tangent)
        if size == 0:
            break
        mean = math.cos(size) * mean + (math.sin(size) / size) * tangent
        mean = mean / space.norm(mean)
        if size <= tolerance or before <= size < OPPOSED:  # steps shrink until they are nothing but rounding
            break
        before = size
    return mean


METHODS: tuple[Method, ...] = (
    Method(
        name="slerp",
        summary="Interpolation between two members along the arc between their directions.",
        formula="sin((1-t)θ)/sin θ · v_1 + sin(tθ)/sin θ · v_2, θ the angle between v_1 and v_2, t = w_2",
        source="Shoemake, SIGGRAPH 1985; mergekit 0.1.5 without its threshold",
        base="optional",
        cost="inner products, then one pass",
        use="Two members; with base: base when their differences from it point in different directions.",
        prepare=weighted_sum(slerp, lambda vectors: vectors.space),
        rule=slerp,
        needs=frozenset({"gram"}),
        least=2,
        most=2,
    ),
    Method(
        name="nuslerp",
        summary="SLERP of two members on the whole tensor, or on every row of a matrix by itself.",
        formula="slerp, with θ per tensor or per row",
        source="mergekit 0.1.5",
        base="optional",
        cost="granularity tensor: inner products, then one pass; granularity row: one pass",
        use="Two members whose output neurons have drifted by different amounts (granularity: row).",
        prepare=prepare_nuslerp,
        rule=nuslerp,
        needs=frozenset({"gram"}),
        by_rows=True,
        least=2,
        most=2,
        needs_with=lambda parameters: frozenset() if parameters["granularity"] == "row" else frozenset({"gram"}),
    ),
    Method(
        name="multislerp",
        summary="Weighted mean direction at the weighted mean length, of weights or of differences from the base.",
        formula="(Σ w_i n_i) · unit(Σ w_i v_i / n_i), n_i = ||v_i||",
        source="mergekit 0.1.5 multislerp, used by arXiv 2602.05787; closed form derived in `multislerp`",
        base="optional",
        cost="inner products, then one pass",
        use="The default: what the paper's released models were merged with; close to linear with base: none.",
        prepare=weighted_sum(multislerp, lambda vectors: vectors.space),
        rule=multislerp,
        needs=frozenset({"gram"}),
    ),
    Method(
        name="riemannian_step",
        summary="The formula printed in the BOOM paper: one step from the mean direction with the true logarithm.",
        formula="(Σ w_i n_i) · exp_m(Σ w_i log_m(v_i / n_i)), m = unit(Σ w_i v_i / n_i)",
        source="arXiv 2602.05787, the merge formula",
        base="optional",
        cost="inner products, then one pass",
        use="To follow the paper's text to the letter; differs from multislerp only where directions spread widely.",
        prepare=weighted_sum(riemannian_step, lambda vectors: vectors.space),
        rule=riemannian_step,
        needs=frozenset({"gram"}),
    ),
    Method(
        name="karcher",
        summary="The direction with the least sum of squared angles to the members, at their weighted mean length.",
        formula="(Σ w_i n_i) · argmin_u Σ w_i ∠(u, v_i)²",
        source="Karcher, CPAM 1977; arXiv 2603.04972",
        base="optional",
        cost="inner products and some iterations on M numbers, then one pass",
        use="base: base and members that differ widely, where one step is not the mean yet.",
        prepare=weighted_sum(karcher, lambda vectors: vectors.space),
        rule=karcher,
        needs=frozenset({"gram"}),
    ),
)
"""Means on the sphere, for the registry."""
