"""All points of a space that has no continuous parameter, and all sets of members that a space can reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

from boom_ray.config import SweepConfig
from boom_ray.config.sweep import decides_members
from boom_ray.errors import ConfigError
from boom_ray.hashing import canonical_json
from boom_ray.sweeps.points import applies, as_listed, member_count, training_part
from boom_ray.sweeps.simplex import lattice
from boom_ray.sweeps.trials import Point

MOST = 10_000
CONTINUOUS = frozenset({"uniform", "log_uniform"})


def points(config: SweepConfig) -> Iterator[Point] | None:
    """The points of a searcher that goes through all of them, one after another; None for one that suggests."""
    return grid(config) if config.sweep.is_listed else None


def grid(config: SweepConfig) -> Iterator[Point]:
    """Every combination of the space, each once; the last keys in the order of choice change fastest.

    Weights go over the multiples of 1/steps. With searcher ``learned`` the weights are not part of it.

    Raises:
        ConfigError: a parameter has no list of values; validation refuses that for the searchers that use this.
    """
    return _walk(config, config.sweep.ordered(), {})


def reachable(config: SweepConfig) -> list[Point] | None:
    """All sets of members that points of the space may ask for, as the parameters that decide them.

    Returns:
        Distinct parts of points, see `training_part`; None if one of the parameters is continuous or there are more
        than 10,000.
    """
    space = config.sweep.space
    wanted = {key for key in space if decides_members(key)}
    if any(space[key].kind in CONTINUOUS for key in wanted):
        return None
    while more := {other for key in wanted for other in space[key].when} - wanted:
        wanted |= more
    found: dict[str, Point] = {}
    for point in _walk(config, [key for key in config.sweep.ordered() if key in wanted], {}):
        part = training_part(point)
        found.setdefault(canonical_json(part), part)
        if len(found) > MOST:
            return None
    return list(found.values())


def _walk(config: SweepConfig, keys: Sequence[str], point: Point) -> Iterator[Point]:
    """All ways to give values to the keys, in the order of choice, that apply."""
    if not keys:
        yield as_listed(config, point)
    elif not applies(config.sweep.space[keys[0]], point):
        yield from _walk(config, keys[1:], point)
    else:
        for value in _values(config, keys[0], point):
            yield from _walk(config, keys[1:], point | {keys[0]: value})


def _values(config: SweepConfig, key: str, point: Point) -> Iterator[Any]:
    parameter = config.sweep.space[key]
    if parameter.integer is not None:
        yield from range(parameter.integer[0], parameter.integer[1] + 1)
    elif parameter.ratios is not None:
        ratios = sorted(parameter.ratios.grid, reverse=True)
        least, most = parameter.ratios.members
        for count in range(least, most + 1):
            yield from (list(one) for one in combinations_with_replacement(ratios, count))
    elif parameter.simplex is not None and parameter.simplex.steps is not None:
        parts, members = parameter.simplex.parts, member_count(config, point)
        for weights in product(*(lattice(members, parameter.simplex.steps) for _ in parts)):
            yield dict(zip(parts, weights, strict=True)) if parameter.simplex.layers else weights[0]
    elif parameter.choice is not None:
        yield from parameter.options
    else:
        raise ConfigError(f"sweep.space.{key}: {parameter.kind} has no list of values; give a choice of values.")
