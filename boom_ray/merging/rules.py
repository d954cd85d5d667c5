"""Per-tensor control: which rule of a recipe speaks about which tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from boom_ray.errors import MergeError

LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Rule:
    """Other weights or parameters for the tensors that match.

    Attributes:
        tensors: names, or names with wildcards; one of them must match the tensor's name, with or without its module
            folder.
        layers: first and last layer, or None for tensors of any layer and of none.
        weights: one per member, sum 1; None leaves them.
        parameters: what changes.
    """

    tensors: tuple[str, ...]
    layers: tuple[int, int] | None = None
    weights: tuple[float, ...] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, key: str) -> bool:
        """Whether the rule speaks about a tensor."""
        if self.layers is not None:
            layer = layer_of(key)
            if layer is None or not self.layers[0] <= layer <= self.layers[1]:
                return False
        return any(_fits(key, pattern) for pattern in self.tensors)

    def spec(self) -> dict[str, Any]:
        """The rule as JSON."""
        return {
            "tensors": list(self.tensors),
            "layers": None if self.layers is None else list(self.layers),
            "weights": None if self.weights is None else list(self.weights),
            "parameters": dict(self.parameters),
        }


def layer_of(key: str) -> int | None:
    """Number of the layer that a tensor belongs to: the first number between dots of its name."""
    found = next((found for name in _names(key) if (found := LAYER.search(name))), None)
    return int(found.group(1)) if found else None


def parse_layers(text: str | None) -> tuple[int, int] | None:
    """First and last layer of ``7`` or ``0-5``."""
    if text is None:
        return None
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def check_rules(rules: Sequence[Rule], keys: Iterable[str]) -> None:
    """Check that every rule, and every pattern of it, speaks about a tensor.

    Raises:
        MergeError: one that matches nothing; the text names it and some names that there are.
    """
    names = list(keys)
    for number, rule in enumerate(rules):
        for pattern in rule.tensors:
            if any(_fits(name, pattern) for name in names):
                continue
            raise MergeError(f"merge.rules.{number}: no tensor is named like {pattern!r}; {_some(names)}")
        if not any(rule.matches(name) for name in names):
            raise MergeError(
                f"merge.rules.{number}: no tensor like {', '.join(rule.tensors)} lies in layers {rule.layers}; "
                f"the model's layers are {_layers(names)}."
            )


def _fits(key: str, pattern: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for name in _names(key))


def _names(key: str) -> Iterator[str]:
    """What may be the name in a key, shortest first: folders of modules and names of tensors may contain slashes."""
    parts = key.split("/")
    for start in range(len(parts) - 1, -1, -1):
        yield "/".join(parts[start:])


def _some(names: Sequence[str]) -> str:
    return f"there are {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def _layers(names: Sequence[str]) -> str:
    numbers = sorted({number for number in map(layer_of, names) if number is not None})
    return f"{numbers[0]}-{numbers[-1]}" if numbers else "not numbered"
