"""Coefficients of a recipe without merging: what plans and reports tell beforehand."""

from __future__ import annotations

import numpy as np

from boom_ray.merging.recipe import Recipe
from boom_ray.merging.tensors.space import F64, Space


def has_coefficients(recipe: Recipe) -> bool:
    """Whether every tensor is merged by M numbers that follow from inner products and the recipe alone.

    Not so for methods that look at single elements, rows of a matrix or data.
    """
    if recipe.entry.rule is None:
        return False
    return all(part.get("granularity") != "row" for part in (recipe.parameters, *(r.parameters for r in recipe.rules)))


def coefficients(recipe: Recipe, key: str, space: Space | None) -> F64:
    """(M,) coefficients of one tensor's vectors: whole weights, or differences if the recipe works on those.

    Args:
        recipe: one that `has_coefficients`.
        key: the tensor.
        space: inner products of the vectors, those of the whole model for methods that read them; None for methods
            that read none.
    """
    rule = recipe.entry.rule
    assert rule is not None
    weights, parameters = recipe.at(key)
    found: F64 = rule(space or Space.of_gram(np.zeros((len(weights), len(weights)))), weights, parameters)
    return found


def merged_length(basis: F64, found: F64, uses_base: bool) -> float:
    """Length of merged tensor - base.

    Args:
        basis: (M + 1, M + 1) Gram matrix of the base and the differences from it.
        found: (M,) coefficients of the differences, or of the whole weights without ``uses_base``.
        uses_base: which of the two. Σ a_i t_i - b = Σ a_i d_i + (Σ a_i - 1) b.
    """
    along = np.concatenate([[0.0 if uses_base else found.sum() - 1.0], found])
    return float(np.sqrt(max(float(along @ basis @ along), 0.0)))
