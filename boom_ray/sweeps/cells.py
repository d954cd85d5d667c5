"""The parameters of a point as cells of a table: one name and one value each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from boom_ray.config.sweep import WEIGHTS, SweepConfig
from boom_ray.hashing import canonical_json
from boom_ray.sweeps.trials import Point

Cell: TypeAlias = str | int | float | None


def weight_parts(point: Point, config: SweepConfig) -> dict[str, list[float]]:
    """Searched merge weights by part of the model, one per member; one part is called "".

    Empty where weights are not searched on the simplex or do not apply to the point.
    """
    parameter = config.sweep.space.get(WEIGHTS)
    value = point.get(WEIGHTS)
    if parameter is None or parameter.simplex is None or value is None:
        return {}
    return dict(value) if isinstance(value, dict) else {"": list(value)}


def member_names(config: SweepConfig, count: int) -> list[str]:
    """Names of the members by position: those of the bags, or 1 to ``count`` where the sweep changes the bags."""
    names = [bag.name for bag in config.bags.resolved()]
    changed = any(key == "bags" or key.startswith(("bags.ratios", "bags.members")) for key in config.sweep.space)
    return names if not changed and len(names) == count else [str(number) for number in range(1, count + 1)]


def weight_cells(point: Point, config: SweepConfig) -> dict[str, float]:
    """Searched weights as ``weight.MEMBER``, or ``weight.PART.MEMBER`` where parts of the model have their own."""
    cells: dict[str, float] = {}
    for part, weights in weight_parts(point, config).items():
        prefix = f"weight.{part}." if part else "weight."
        names = member_names(config, len(weights))
        cells |= {prefix + name: weight for name, weight in zip(names, weights, strict=True)}
    return cells


def found_cells(found: Mapping[str, Any], config: SweepConfig) -> dict[str, Cell]:
    """What a merge searched itself: ``weight.MEMBER``, and all else as ``found.NAME``.

    Args:
        found: see `boom_ray.sweeps.trials.Answer`.
        config: names the members.
    """
    weights = list(found.get("weights", []))
    names = member_names(config, len(weights))
    cells: dict[str, Cell] = {f"weight.{name}": weight for name, weight in zip(names, weights, strict=True)}
    return cells | {f"found.{name}": label(value) for name, value in found.items() if name != "weights"}


def parameters(point: Point, config: SweepConfig) -> dict[str, Cell]:
    """Parameters of a point under names of their own, in the order of the space; those that do not apply are absent.

    Weights are as in `weight_cells`; other lists and mappings are JSON.
    """
    cells: dict[str, Cell] = {}
    for key in config.sweep.space:
        if key == WEIGHTS and (weights := weight_cells(point, config)):
            cells |= weights
        elif key in point:
            cells[key] = label(point[key])
    return cells


def label(value: object) -> str | int | float:
    """A value as one cell: texts and numbers as they are, all else as JSON."""
    return value if isinstance(value, str | int | float) else canonical_json(value)
