"""From the configuration's merge section and the members to a recipe: method, numbers, nothing left to decide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from boom_ray.config import MergeConfig
from boom_ray.config.merge import complete_parameters
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

    @cached_property
    def needs(self) -> frozenset[str]:
        """What must be known beside the members for any tensor, whatever rules speak about it; see `Method.needs`."""
        return frozenset().union(*(needs for _, needs in self._needs()))

    def _needs(self) -> Iterator[tuple[int | None, frozenset[str]]]:
        """What every set of parameters needs that rules can make together, and the last of these rules."""
        yield None, self.entry.needs_for(self.parameters)
        reached = {frozenset(self.parameters.items())}
        for number, rule in enumerate(self.rules):
            changed = {frozenset({**dict(parameters), **rule.parameters}.items()) for parameters in reached}
            for parameters in changed - reached:
                yield number, self.entry.needs_for(dict(parameters))
            reached |= changed

    def at(self, key: str) -> tuple[F64, dict[str, Any]]:
        """Weights, (M,) of sum 1, and parameters of one tensor."""
        weights, parameters = self.weights, dict(self.parameters)
        for rule in self.rules:
            if rule.matches(key):
                weights = rule.weights or weights
                parameters |= rule.parameters
        return np.array(weights), parameters

    def check(self, keys: Iterable[str]) -> None:
        """Check the rules against the names of the tensors, see `check_rules`, and what they make of one together.

        Raises:
            MergeError: a rule about nothing, or rules that give a tensor parameters that do not go together.
        """
        names = list(keys)
        check_rules(self.rules, names)
        combined: dict[tuple[int, ...], str] = {}
        for key in names:
            combined.setdefault(tuple(number for number, rule in enumerate(self.rules) if rule.matches(key)), key)
        combined.pop((), None)
        for numbers, key in combined.items():
            try:
                complete_parameters(self.method, self.at(key)[1])
            except ValueError as error:
                told = " and ".join(f"merge.rules.{number}" for number in numbers)
                raise MergeError(f"Tensor {key}: {told} do not go together: {error}.") from None

    def check_whole(self) -> None:
        """Check that no rule changes single tensors for a method that looks at the whole model.

        Raises:
            MergeError: one does; the text names it.
        """
        for number, needs in self._needs() if self.rules else ():
            if any(need.startswith("model_") for need in needs):
                rule = "merge.rules" if number is None else f"merge.rules.{number}"
                raise MergeError(
                    f"{self.method} looks at the whole model here, so {rule} cannot change single tensors."
                )

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
        MergeError: no members, too few or too many for the method, two of one name, weights that do not fit them or
            the method, a base that the method does not read, or a rule that cannot be for one tensor.
    """
    method = METHODS[config.method]
    weights = _weights(method, config.weights, members, "merge.weights")
    _check_members(method, members)
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
                None
                if rule.weights is None
                else _weights(method, rule.weights, members, f"merge.rules.{number}.weights"),
                {name: config.complete_parameters(rule.parameters)[name] for name in rule.parameters},
            )
            for number, rule in enumerate(config.rules)
        ),
        uses_base=method.base == "required" or (method.base == "optional" and config.base == "base"),
        merge_dtype=config.merge_dtype,
        output_dtype=config.output_dtype,
        shard_bytes=round(config.shard_gb * 1e9),
    )
    recipe.check_whole()
    return recipe


def _weights(
    method: Method, weights: str | Sequence[float], members: Sequence[MemberRef], place: str
) -> tuple[float, ...]:
    found = normalised_weights(weights, members, place)
    if method.equal_weights and not np.allclose(found, found[0], rtol=1e-9, atol=0.0):
        told = ", ".join(f"{weight:.4g}" for weight in found)
        raise MergeError(
            f"{place}: {method.name} has no place for the weights {told}; set them to equal, or choose another "
            f"merge.method."
        )
    return found


def _check_members(method: Method, members: Sequence[MemberRef]) -> None:
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MergeError(
            f"Members must have different names, as figures are kept by name; used more than once: {', '.join(twice)}."
        )
    if len(members) < method.least or (method.most is not None and len(members) > method.most):
        wanted = f"exactly {method.least}" if method.least == method.most else f"at least {method.least}"
        raise MergeError(f"{method.name} merges {wanted} members; there are {len(members)}.")


def _with_base(kind: str) -> str:
    return ", ".join(name for name, method in METHODS.items() if method.base == kind)


def normalised_weights(
    weights: str | Sequence[float], members: Sequence[MemberRef], place: str = "merge.weights"
) -> tuple[float, ...]:
    """The members' weights, scaled to sum 1; the one place where that is done.

    Args:
        weights: ``equal``, ``size``, or one number per member.
        members: at least one.
        place: key of the configuration, for errors.

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
        raise MergeError(f"{place} has {len(raw)} numbers for {len(members)} members ({names}).")
    if any(weight < 0 or not math.isfinite(weight) for weight in raw):
        raise MergeError(f"{place} must be finite and not negative; got {raw} for {names}.")
    _, exponent = math.frexp(max(raw))  # a power of two changes no digit, and no sum overflows
    raw = [math.ldexp(weight, -exponent) for weight in raw]
    total = math.fsum(raw)
    if total == 0:
        raise MergeError(f"The merge weights of {names} sum to zero; at least one must be positive.")
    return tuple(weight / total for weight in raw)
