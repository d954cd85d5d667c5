"""From the configuration's merge section and the members to a recipe: method, numbers, nothing left to decide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.methods.method import Method
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.rules import Rule, check_rules, parse_layers
from boom_ray.merging.tensors.space import F64


@dataclass(frozen=True)
class MemberRef:
    """A model to merge, or the base.

    Attributes:
        name: name of the bag, or ``base``; used in errors and reports.
        path: model folder, adapter folder, or an artifact's place.
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
        parameters: all parameters of the method.
        rules: other weights and parameters for some tensors.
        uses_base: whether vectors are differences from the base.
        merge_dtype: ``auto``, ``float32`` or ``float64``.
        output_dtype: ``members``, ``float32``, ``bfloat16`` or ``float16``.
        shard_bytes: most bytes of one saved file.
    """

    method: str
    weights: tuple[float, ...]
    parameters: Mapping[str, Any]
    rules: tuple[Rule, ...]
    uses_base: bool
    merge_dtype: str
    output_dtype: str
    shard_bytes: int

    @property
    def entry(self) -> Method:
        """The method's entry of the registry."""
        return METHODS[self.method]

    @property
    def needs(self) -> frozenset[str]:
        """What must be known beside the members, see `Method.needs`."""
        return self.entry.needs_for(self.parameters)

    def at(self, key: str) -> tuple[F64, dict[str, Any]]:
        """Weights, (M,) of sum 1, and parameters of one tensor."""
        weights, parameters = self.weights, dict(self.parameters)
        for rule in self.rules:
            if rule.matches(key):
                weights = rule.weights or weights
                parameters |= rule.parameters
        return np.array(weights), parameters

    def check(self, keys: Iterable[str]) -> None:
        """Check the rules against the names of the tensors, see `check_rules`."""
        check_rules(self.rules, keys)

    def spec(self) -> dict[str, Any]:
        """The recipe as JSON: what determines the merged model beside the members."""
        return {
            "method": self.method,
            "weights": list(self.weights),
            "parameters": dict(self.parameters),
            "rules": [rule.spec() for rule in self.rules],
            "base": "base" if self.uses_base else "none",
            "merge_dtype": self.merge_dtype,
            "output_dtype": self.output_dtype,
            "shard_bytes": self.shard_bytes,
        }


def resolve(config: MergeConfig, members: Sequence[MemberRef]) -> Recipe:
    """Resolve the configuration for these members.

    Raises:
        MergeError: no members, too few or too many for the method, weights that do not fit them, a base that the
            method does not read, or a rule that cannot be for one tensor.
    """
    method = METHODS[config.method]
    weights = normalised_weights(config.weights, members)
    _check_count(method, members)
    if method.base == "ignored" and config.base == "base":
        raise MergeError(f"{method.name} works on whole weights; merge.base=base is for {_with_base('optional')}.")
    recipe = Recipe(
        method=method.name,
        weights=weights,
        parameters=config.complete_parameters({}),
        rules=tuple(
            Rule(
                rule.tensors,
                parse_layers(rule.layers),
                None if rule.weights is None else normalised_weights(rule.weights, members),
                {name: config.complete_parameters(rule.parameters)[name] for name in rule.parameters},
            )
            for rule in config.rules
        ),
        uses_base=method.base == "required" or (method.base == "optional" and config.base == "base"),
        merge_dtype=config.merge_dtype,
        output_dtype=config.output_dtype,
        shard_bytes=round(config.shard_gb * 1e9),
    )
    if recipe.rules and any(need.startswith("model_") for need in recipe.needs):
        raise MergeError(f"{method.name} looks at the whole model here, so merge.rules cannot change single tensors.")
    return recipe


def _check_count(method: Method, members: Sequence[MemberRef]) -> None:
    if len(members) < method.least or (method.most is not None and len(members) > method.most):
        wanted = f"exactly {method.least}" if method.least == method.most else f"at least {method.least}"
        raise MergeError(f"{method.name} merges {wanted} members; there are {len(members)}.")


def _with_base(kind: str) -> str:
    return ", ".join(name for name, method in METHODS.items() if method.base == kind)


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
