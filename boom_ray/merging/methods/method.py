"""What a merge method is: how it describes itself and how it turns the vectors of one tensor into one.

A method gets the M vectors of one tensor: the members' whole weights, or their differences from the base (task
vectors). Before anything is written it may look at them as often as it likes (`Vectors.space`, `Vectors.map`); what it
returns is called once for every strip of elements, in any order and from several threads, so it must not keep state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Strip, Vectors

Parameters = Mapping[str, Any]
Combine = Callable[[Strip], torch.Tensor]
"""Strip of n elements -> (n,) merged vector, in the strip's type; the base is added by the caller. May overwrite
``strip.rows``."""
Prepare = Callable[[Vectors, F64, Parameters], Combine]
"""Vectors, (M,) weights of sum 1, parameters -> how strips are combined."""
Rule = Callable[[Space, F64, Parameters], F64]
"""Inner products, (M,) weights of sum 1, parameters -> (M,) coefficients."""


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        name: name in ``merge.method``.
        summary: one sentence for people who choose a method.
        formula: what it computes, in one line; t_i members, b base, d_i = t_i - b, w_i weights.
        source: paper, and code where it differs from the paper.
        base: whether vectors are differences from the base model (``required``), whole weights (``ignored``), or
            either, as ``merge.base`` says (``optional``).
        cost: passes over the members, and what else takes time.
        use: when to choose it.
        prepare: the method itself; for coefficient methods made by `weighted_sum`.
        rule: the coefficients, for methods that have them: M numbers per tensor, from inner products alone.
        needs: what must be known: ``gram`` (inner products of the tensor), ``magnitudes`` (histograms of the tensor),
            ``model_gram`` and ``model_magnitudes`` (the same of the whole model), ``fisher`` and ``activations``
            (statistics gathered from data), ``scores`` and ``probe`` (weights that are searched or learned).
        by_rows: whether strips must hold whole rows of a matrix.
        least_rows: fewest rows of such a strip; more where work per strip is large.
        least: fewest members.
        most: most members; None for any number.
        equal_weights: whether all members must have the same weight; other weights are refused before anything is read.
        needs_with: what must be known when that depends on the parameters; None for ``needs`` always.
    """

    name: str
    summary: str
    formula: str
    source: str
    base: Literal["ignored", "required", "optional"]
    cost: str
    use: str
    prepare: Prepare
    rule: Rule | None = None
    needs: frozenset[str] = frozenset()
    by_rows: bool = False
    least_rows: int = 1
    least: int = 1
    most: int | None = None
    equal_weights: bool = False
    needs_with: Callable[[Parameters], frozenset[str]] | None = None

    def rows_for(self, parameters: Parameters) -> bool:
        """Whether strips must hold whole rows with these parameters: a granularity, where there is one, decides."""
        return self.by_rows and parameters.get("granularity", "row") == "row"

    def needs_for(self, parameters: Parameters) -> frozenset[str]:
        """What must be known when the method runs with these parameters."""
        return self.needs if self.needs_with is None else self.needs_with(parameters)


def weighted_sum(rule: Rule, space: Callable[[Vectors], Space]) -> Prepare:
    """A coefficient method: Σ a_i v_i with coefficients from a rule.

    Product and sum are separate operations: each is rounded by itself on every machine, where a fused one would depend
    on the vector width.

    Args:
        rule: gives the coefficients.
        space: picks the inner products that the rule reads: the tensor's or the whole model's.
    """

    def prepare(vectors: Vectors, weights: F64, parameters: Parameters) -> Combine:
        coefficients = rule(space(vectors), weights, parameters).tolist()
        vectors.note("coefficients", coefficients)
        return lambda strip: add_up(strip.rows, coefficients)

    return prepare


def add_up(rows: torch.Tensor, coefficients: list[float]) -> torch.Tensor:
    """Σ a_i row_i of (M, n) rows, which it overwrites."""
    total: torch.Tensor | None = None
    for row, coefficient in zip(rows, coefficients, strict=True):
        if coefficient != 0:
            row.mul_(coefficient)
            total = row if total is None else total.add_(row)
    return torch.zeros_like(rows[0]) if total is None else total
