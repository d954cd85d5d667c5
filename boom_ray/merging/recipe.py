"""From the configuration's merge section and the members to a recipe: method, numbers, nothing left to decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.methods import F64, METHODS, Method


@dataclass(frozen=True)
class MemberRef:
    """A model to merge, or the base.

    Attributes:
        name: name of the bag, or ``base``; used in errors and reports.
        path: sentence-transformers folder (for the base a transformers folder will do), or an artifact's place.
        fingerprint: hash of its weights.
        examples: size of its bag, for ``weights: size``.
    """

    name: str
    path: str
    fingerprint: str
    examples: int


@dataclass(frozen=True)
class Recipe:
    """A merge, resolved.

    Attributes:
        method: name in the registry.
        weights: one per member, sum 1.
        parameters: the numbers that the method reads, by name.
        uses_base: whether vectors are differences from the base.
        output_dtype: ``members``, ``float32``, ``bfloat16`` or ``float16``.
    """

    method: str
    weights: tuple[float, ...]
    parameters: tuple[tuple[str, float], ...]
    uses_base: bool
    output_dtype: str

    @property
    def entry(self) -> Method:
        """The method's entry of the registry."""
        return METHODS[self.method]

    def coefficients(self, gram: F64) -> F64:
        """Coefficients of one tensor's vectors, (M,), from its (M, M) Gram matrix (not read by methods without)."""
        return self.entry.coefficients(gram, np.array(self.weights), dict(self.parameters))

    def spec(self) -> dict[str, Any]:
        """The recipe as JSON: what determines the merged weights beside those of the members."""
        return {
            "method": self.method,
            "weights": list(self.weights),
            "parameters": dict(self.parameters),
            "base": "base" if self.uses_base else "none",
            "output_dtype": self.output_dtype,
        }


def resolve(config: MergeConfig, members: Sequence[MemberRef]) -> Recipe:
    """Resolve the configuration for these members; fields that the method does not read leave no trace.

    Raises:
        MergeError: no members, or weights that do not fit them.
    """
    method = METHODS[config.method]
    return Recipe(
        method=method.name,
        weights=normalised_weights(config.weights, members),
        parameters=tuple((name, float(getattr(config, name))) for name in sorted(method.parameters)),
        uses_base=method.base == "required" or (method.base == "optional" and config.base == "base"),
        output_dtype=config.output_dtype,
    )


def normalised_weights(weights: str | Sequence[float], members: Sequence[MemberRef]) -> tuple[float, ...]:
    """The members' weights, scaled to sum 1; the one place where that is done.

    Args:
        weights: ``equal``, ``size``, or one number per member.
        members: at least one.

    Raises:
        MergeError: no members, another number of weights, negative or not finite ones, or a sum of zero.
    """
    if not members:
        raise MergeError("There is nothing to merge: no member was given.")
    if weights == "equal":
        raw = [1.0] * len(members)
    elif weights == "size":
        raw = [float(member.examples) for member in members]
    else:
        raw = [float(weight) for weight in weights]
    names = ", ".join(member.name for member in members)
    if len(raw) != len(members):
        raise MergeError(f"merge.weights has {len(raw)} numbers for {len(members)} members ({names}).")
    if any(weight < 0 or not math.isfinite(weight) for weight in raw):
        raise MergeError(f"merge.weights must be finite and not negative; got {raw} for {names}.")
    total = math.fsum(raw)
    if total == 0:
        raise MergeError(f"The merge weights of {names} sum to zero; at least one must be positive.")
    return tuple(weight / total for weight in raw)
