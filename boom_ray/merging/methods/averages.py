"""Weighted averages: coefficients that do not depend on the tensors, so nothing is read before the merge itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Method, Parameters, weighted_sum
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Vectors


def linear(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the weighted average: the weights themselves.

    Args:
        space: not read.
        weights: (M,), sum 1.
        parameters: none.

    Returns:
        (M,) coefficients.

    Source: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482 (uniform soup: equal weights).

    Limits: none; any number of members and any weights. The average of members that point in different directions is
    shorter than they are; `multislerp` restores the length.
    """
    return weights


def task_arithmetic(space: Space, weights: F64, parameters: Parameters) -> F64:
    """Coefficients of the differences: the weights times ``scale``.

    With scale 1 this is `linear`; larger scales overshoot the average, smaller ones stay near the base. mergekit does
    not normalise the weights by default; here they always have sum 1, so that ``scale`` alone sets the length.

    Args:
        space: not read.
        weights: (M,), sum 1.
        parameters: ``scale``, the lambda of the paper.

    Returns:
        (M,) coefficients of the differences from the base.

    Source: Ilharco et al., "Editing models with task arithmetic", ICLR 2023, arXiv 2212.04089.

    Limits: one scale for all tensors unless rules say otherwise; no member can be subtracted, since weights are not
    negative.
    """
    return weights * float(parameters["scale"])


def greedy_soup(scores: Sequence[float], evaluate: Callable[[tuple[int, ...]], float]) -> tuple[float, ...]:
    """Weights of the greedy soup: the best member, and every other one that does not make the average worse.

    Members are tried from the best score to the worst, equal ones in their order. The soup of the best member alone is
    that member, so its score is taken as given and `evaluate` is called once for each of the other M - 1.

    Args:
        scores: (M,), of every member by itself; higher is better.
        evaluate: held-out score of the plain average of some members, told by their positions in ascending order; on
            the same scale as ``scores``.

    Returns:
        (M,) weights, 1/k for the k members of the soup and 0 for the others.

    Raises:
        MergeError: no members, or a score that is not a number.

    Source: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482, Recipe 1.

    Limits: a member that was passed over is not tried again, so the result is not the best of all subsets.
    """
    if not scores:
        raise MergeError("The greedy soup needs the score of at least one member, and there is none.")
    for position, score in enumerate(scores):
        _check(score, f"member {position}")
    order = sorted(range(len(scores)), key=lambda position: -scores[position])
    soup: tuple[int, ...] = (order[0],)
    best = scores[order[0]]
    for candidate in order[1:]:
        trial = tuple(sorted((*soup, candidate)))
        score = _check(evaluate(trial), f"the soup of members {', '.join(map(str, trial))}")
        if score >= best:
            soup, best = trial, score
    return tuple(1 / len(soup) if position in soup else 0.0 for position in range(len(scores)))


def _check(score: float, what: str) -> float:
    if math.isnan(score):
        raise MergeError(
            f"The score of {what} is not a number, so the greedy soup cannot compare it; look at that evaluation, or "
            f"leave the member out."
        )
    return score


def _unread(vectors: Vectors) -> Space:
    """A space that costs nothing, for rules that do not look at it."""
    return Space.of_gram(np.zeros((vectors.members, vectors.members)))


METHODS: tuple[Method, ...] = (
    Method(
        name="linear",
        summary="Weighted average of the members' weights (model soup).",
        formula="Σ w_i t_i",
        source="Wortsman et al., ICML 2022, arXiv 2203.05482",
        base="ignored",
        cost="one pass",
        use="The baseline that every other method has to beat; hard to beat when the members are bags of one corpus.",
        prepare=weighted_sum(linear, _unread),
        rule=linear,
    ),
    Method(
        name="greedy_soup",
        summary="Average of the best member and of those that do not lower the held-out score, found one by one.",
        formula="Σ_{i in soup} t_i / k, members tried from the best to the worst and kept if the score does not drop",
        source="Wortsman et al., ICML 2022, arXiv 2203.05482, Recipe 1",
        base="ignored",
        cost="one pass, after M - 1 evaluations of soups on held-out tasks",
        use="Some members may be bad and there is a held-out score that you trust.",
        prepare=weighted_sum(linear, _unread),
        rule=linear,
        needs=frozenset({"scores"}),
    ),
    Method(
        name="task_arithmetic",
        summary="Base plus scale times the weighted average of the members' differences from it.",
        formula="b + λ Σ w_i d_i",
        source="Ilharco et al., ICLR 2023, arXiv 2212.04089",
        base="required",
        cost="one pass, with the base",
        use="The average goes too far from the base or not far enough, and one number should set how far.",
        prepare=weighted_sum(task_arithmetic, _unread),
        rule=task_arithmetic,
    ),
)
"""Averages, for the registry."""
