"""All points of a space that has no continuous parameter, and the sets of members that a space can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement, product
from typing import Any, TypeAlias

from boom_ray.config import SweepConfig
from boom_ray.config.sweep import decides_members
from boom_ray.errors import ConfigError
from boom_ray.hashing import canonical_json
from boom_ray.sweeps.points import applies, as_listed, can_have, member_count, training_part
from boom_ray.sweeps.simplex import lattice
from boom_ray.sweeps.trials import Point

MOST = 10_000
CONTINUOUS = frozenset({"uniform", "log_uniform"})
Values: TypeAlias = Callable[[SweepConfig, str, Point], Iterator[Any]]
"""What a key may be where others have the values of a point."""


def points(config: SweepConfig) -> Iterator[Point] | None:
    """The points of a searcher that goes through all of them, one after another; None for one that suggests."""
    return grid(config) if config.sweep.is_listed else None


def grid(config: SweepConfig) -> Iterator[Point]:
    """Every combination of the space, each once; the last keys in the order of choice change fastest.

    Weights go over the multiples of 1/steps. With searcher ``learned`` the weights are not part of it, nor are those of
    bags that do not go together, whose one point is no run.

    Raises:
        ConfigError: a parameter has no list of values; validation refuses that for the searchers that use this.
    """
    return _walk(config, config.sweep.ordered(), {}, _values)


def continuous(config: SweepConfig) -> list[str]:
    """The parameters that decide members and have no list of values."""
    return [key for key, one in config.sweep.space.items() if decides_members(key) and one.kind in CONTINUOUS]


def reachable(config: SweepConfig) -> list[Point] | None:
    """All sets of members that points of the space may ask for, as the parameters that decide them.

    Returns:
        Distinct parts of points, see `training_part`; None if one of the parameters is continuous or there are more
        than 10,000.
    """
    return None if continuous(config) else _member_parts(config, _values)


def extremes(config: SweepConfig) -> list[Point] | None:
    """Sets of members among which are those that cost most: every option, both ends of ranges, most and largest bags.

    A member's share of the data is a product of numbers of the run and of what they leave (a complement), so no set
    between the ends costs more.

    Returns:
        As `reachable`; None if there are more than 10,000.
    """
    return _member_parts(config, _ends)


def _member_parts(config: SweepConfig, values: Values) -> list[Point] | None:
    """The distinct parts of points that decide members; None if there are too many."""
    space = config.sweep.space
    wanted = {key for key in space if decides_members(key)}
    while more := {other for key in wanted for other in space[key].when} - wanted:
        wanted |= more
    found: dict[str, Point] = {}
    for point in _walk(config, [key for key in config.sweep.ordered() if key in wanted], {}, values):
        part = training_part(point)
        found.setdefault(canonical_json(part), part)
        if len(found) > MOST:
            return None
    return list(found.values())


def _walk(config: SweepConfig, keys: Sequence[str], point: Point, values: Values) -> Iterator[Point]:
    """All ways to give values to the keys, in the order of choice, that apply."""
    if not keys:
        yield as_listed(config, point)
    elif not (applies(config.sweep.space[keys[0]], point) and can_have(config, config.sweep.space[keys[0]], point)):
        yield from _walk(config, keys[1:], point, values)
    else:
        for value in values(config, keys[0], point):
            yield from _walk(config, keys[1:], point | {keys[0]: value}, values)


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


def _ends(config: SweepConfig, key: str, point: Point) -> Iterator[Any]:
    parameter = config.sweep.space[key]
    if parameter.ratios is not None:
        yield [max(parameter.ratios.grid)] * parameter.ratios.members[1]
    elif parameter.integer is not None or parameter.kind in CONTINUOUS:
        yield from parameter.bounds
    else:
        yield from _values(config, key, point)
