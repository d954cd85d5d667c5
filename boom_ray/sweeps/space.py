"""The search space: how a searcher draws a point of it, what it looks like, and whether every value can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from boom_ray.config import ParameterConfig, SweepConfig
from boom_ray.config.sweep import RatiosConfig, SimplexConfig, label
from boom_ray.sweeps.points import applies, as_listed, can_have, member_count
from boom_ray.sweeps.simplex import broken_stick, readable
from boom_ray.sweeps.trials import Point

Option: TypeAlias = str | int | float | bool
DIGITS = 6  # significant ones of a searcher's numbers


class Suggest(Protocol):
    """A searcher that chooses one value after another. A name always means the same, with the same options or range."""

    def choice(self, name: str, options: Sequence[Option]) -> Option:
        """One of the options; lists and sections are offered by their label."""

    def uniform(self, name: str, low: float, high: float, log: bool = False) -> float:
        """A number in [low, high], all alike or all magnitudes alike."""

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from low to high, both included."""


def sample(config: SweepConfig, suggest: Suggest) -> Point:
    """A point of the space: what others depend on first, then what decides members, the weights last.

    Numbers have 6 significant digits, weights 4 decimals and sum 1, so that recipes are readable and their keys stable.
    Where the chosen bags do not go together, their weights cannot be counted: the point has none, and is no run; see
    `boom_ray.sweeps.points.trial_config`, which says why.
    """
    point: Point = {}
    for key in config.sweep.ordered():
        parameter = config.sweep.space[key]
        if applies(parameter, point) and can_have(config, parameter, point):
            point[key] = _draw(config, key, parameter, point, suggest)
    return as_listed(config, point)


def _draw(config: SweepConfig, key: str, parameter: ParameterConfig, point: Point, suggest: Suggest) -> Any:
    if parameter.simplex is not None:
        return _weights(key, parameter.simplex, member_count(config, point), suggest)
    if parameter.ratios is not None:
        return _ratios(key, parameter.ratios, suggest)
    if parameter.integer is not None:
        return int(suggest.integer(key, *parameter.integer))
    if parameter.choice is not None:
        return _option(key, parameter.options, suggest)
    low, high = parameter.bounds
    number = suggest.uniform(key, low, high, log=parameter.log_uniform is not None)
    return min(max(float(f"{number:.{DIGITS}g}"), low), high)


def _option(key: str, options: Sequence[Any], suggest: Suggest) -> Any:
    if all(isinstance(option, str | int | float) for option in options):
        return suggest.choice(key, options)
    by_label = {label(option): option for option in options}
    return by_label[str(suggest.choice(key, list(by_label)))]


def _ratios(key: str, ratios: RatiosConfig, suggest: Suggest) -> list[float]:
    """How many, then one after another, none above the one before; so each set of ratios has one way to it."""
    count = suggest.integer(f"{key}.count", *ratios.members) if ratios.members[0] < ratios.members[1] else None
    left = sorted(ratios.grid, reverse=True)
    chosen: list[float] = []
    for index in range(count or ratios.members[0]):
        name = f"{key}.{index}" + (f".from-{left[0]:g}" if index else "")
        if len(left) > 1:
            chosen.append(float(suggest.choice(name, left)))
        else:
            chosen.append(left[0])
        left = [ratio for ratio in left if ratio <= chosen[-1]]
    return chosen


def _weights(key: str, simplex: SimplexConfig, members: int, suggest: Suggest) -> Any:
    """One list of weights, or part to weights where groups have their own."""
    parts = {}
    for part in simplex.parts:
        name = f"{key}.{part}.M{members}" if simplex.layers else f"{key}.M{members}"
        draws = [suggest.uniform(f"{name}.{index}", 0.0, 1.0) for index in range(members - 1)]
        parts[part] = readable(broken_stick(draws))
    return parts if simplex.layers else next(iter(parts.values()))


def describe(config: SweepConfig) -> list[dict[str, str]]:
    """One row per parameter, in the order of the space: ``key``, ``search`` (how), ``when`` (empty: always)."""
    return [
        {
            "key": key,
            "search": _in_words(parameter),
            "when": " and ".join(
                f"{other} = {' or '.join(map(label, wanted))}" for other, wanted in parameter.when.items()
            ),
        }
        for key, parameter in config.sweep.space.items()
    ]


def _in_words(parameter: ParameterConfig) -> str:
    if parameter.simplex is not None:
        groups = f", each of {', '.join(parameter.simplex.parts)} by itself" if parameter.simplex.layers else ""
        steps = f", multiples of 1/{parameter.simplex.steps}" if parameter.simplex.steps else ""
        return f"one weight per member, sum 1{steps}{groups}"
    if parameter.ratios is not None:
        least, most = parameter.ratios.members
        return f"{least} to {most} bags, ratios {', '.join(f'{ratio:g}' for ratio in parameter.ratios.grid)}"
    if parameter.choice is not None:
        return " or ".join(map(label, parameter.options))
    low, high = parameter.bounds
    kind = {"integer": ", integers", "log_uniform": ", all magnitudes alike"}.get(parameter.kind, "")
    return f"{low:g} to {high:g}{kind}"
