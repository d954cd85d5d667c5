"""Self Positioning: the members' differences are joined one after another on the sphere of the whole model."""

from __future__ import annotations

import torch

from boom_ray.merging.methods.method import Method, Parameters, weighted_sum
from boom_ray.merging.methods.spheres import OPPOSED
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Vectors

SMALL = 1e-6
"""Square of a chord below which the series of the angle and of its sines is exact to float64."""


def self_positioning(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the differences from the base: the `chain` of the members, times ``scale``.

    Args:
        space: inner products of the differences over all tensors together.
        weights: (M,), sum 1; only their ratios matter.
        parameters: ``scale``, the lambda of the paper.

    Returns:
        (M,) coefficients, the same for every tensor.

    Source: Li et al., "Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through Model
    Merging" (Self Positioning), arXiv 2410.15035; the formulas are those of `chain`, taken
    from a description of the paper (notes of a re-implementation), not from the authors' code.

    Limits: the order of the members matters: the first ones are interpolated more often than the last.
    """
    coefficients: F64 = chain(torch.from_numpy(space.gram), torch.from_numpy(weights)).numpy()
    return coefficients * float(parameters["scale"])


def chain(gram: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Coefficients of vectors that are interpolated on the sphere one after another.

    V_1 = v_1 and V_i = slerp(V_{i-1}, v_i, t_i) with t_i = a_i / (mean(a_1 … a_{i-1}) + a_i), where slerp is that of
    `boom_ray.merging.methods.spheres.slerp`: coefficients of the vectors themselves, the plain interpolation if
    one is zero or the two are opposite. A vector of weight zero leaves V as it is, and the first one of positive weight
    replaces all before it.

    The result can be differentiated by the weights; derivatives are finite for parallel and zero vectors too.

    Args:
        gram: (M, M) float64, inner products of the vectors.
        raw: (M,) float64, weights a_i, not negative; any scale.

    Returns:
        (M,) float64, c such that V_M = Σ c_i v_i.

    Source: arXiv 2410.15035.

    Limits: depends on the order of the vectors.
    """
    units = torch.eye(len(raw), dtype=gram.dtype, device=gram.device)
    joined = units[0]
    for index in range(1, len(raw)):
        if raw[index].item() == 0:
            continue
        share = raw[index] / (raw[:index].mean() + raw[index])
        first, second = _slerp(gram, joined, units[index], share)
        joined = first * joined + second * units[index]
    return joined


def _slerp(
    gram: torch.Tensor, left: torch.Tensor, right: torch.Tensor, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two coefficients of slerp for two combinations; a branch is not computed where its derivative is infinite."""
    first, second = _square(gram, left), _square(gram, right)
    if first.item() <= 0 or second.item() <= 0:
        return 1 - share, share
    one, two = left / first.sqrt(), right / second.sqrt()
    chord, other = _square(gram, one - two), _square(gram, one + two)
    if other.item() <= OPPOSED**2:
        return 1 - share, share
    if chord.item() < SMALL:
        squared = chord + chord**2 / 12  # θ² of a chord of length 2 sin(θ/2)
        return _near(1 - share, squared), _near(share, squared)
    angle = 2 * torch.atan2(chord.sqrt(), other.sqrt())
    return torch.sin((1 - share) * angle) / torch.sin(angle), torch.sin(share * angle) / torch.sin(angle)


def _square(gram: torch.Tensor, combination: torch.Tensor) -> torch.Tensor:
    return combination @ gram @ combination


def _near(share: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """sin(tθ) / sin θ by its series up to θ⁴."""
    return share * (1 + (1 - share**2) * squared / 6 + (7 - 10 * share**2 + 3 * share**4) * squared**2 / 360)


def _model_space(vectors: Vectors) -> Space:
    space = vectors.whole.space
    if space is None:
        raise AssertionError(f"{vectors.name}: this method was to be given the inner products of the whole model")
    return space


METHODS: tuple[Method, ...] = (
    Method(
        name="self_positioning",
        summary="Differences from the base joined by SLERP one after another, with learned weights and length.",
        formula="b + λ V_M, V_1 = d_1, V_i = slerp(V_{i-1}, d_i, a_i / (mean(a_1 … a_{i-1}) + a_i))",
        source="Li et al., arXiv 2410.15035",
        base="required",
        cost="inner products of all tensors, gradient descent on M + 1 numbers over a sample, then one pass",
        use="Few members for different tasks, with training data of which a balanced sample can be drawn.",
        prepare=weighted_sum(self_positioning, _model_space),
        rule=self_positioning,
        needs=frozenset({"model_gram", "probe"}),
    ),
)
"""Self Positioning, for the registry."""
