"""From a point of the space to the run that it stands for, and to the part of it that decides members."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from boom_ray.config import BagsConfig, ParameterConfig, RunConfig, Section, SweepConfig
from boom_ray.config.load import validate
from boom_ray.config.sweep import LEARNED, RATIOS, REST, WEIGHTS, decides_members, label
from boom_ray.errors import ConfigError
from boom_ray.sweeps.trials import Point

LAYERS = re.compile(r"[0-9]+(-[0-9]+)?")
BAGS = "bags"


def trial_config(config: SweepConfig, point: Point, origin: str = "") -> RunConfig:
    """The run with a point's values in their places.

    A mapping for a section changes the keys that it has and leaves the others; lists and free mappings (caps, merge
    parameters) are replaced. Ratios replace bags by name. Weights of groups become rules, after those of the run. Where
    weights are searched and do not apply, members weigh as the run says, or equally if it has numbers for other bags.

    Args:
        config: the run, and what of it is searched.
        point: some or all parameters of the space.
        origin: what to call it in errors; by default its keys and values.

    Raises:
        ConfigError: the values do not go together, or one of them is wrong.
    """
    told = origin or f"The trial with {words(point)}"
    tree = config.model_dump(mode="json", include=set(RunConfig.model_fields))
    _put_all(tree, config, point, told)
    merge = tree["merge"]
    if config.sweep.searcher == "learned":
        merge["method"] = LEARNED
    weights = point.get(WEIGHTS)
    if isinstance(weights, dict):
        merge["weights"] = weights[REST]
        merge["rules"] += [_rule(group, own) for group, own in weights.items() if group != REST]
    elif WEIGHTS in config.sweep.space and WEIGHTS not in point and isinstance(merge["weights"], list):
        fits = len(merge["weights"]) == len(validate(BagsConfig, tree[BAGS], told).resolved())
        merge["weights"] = merge["weights"] if fits else "equal"
    return validate(RunConfig, tree, told)


def member_count(config: SweepConfig, point: Point) -> int:
    """How many bags the run of a point has; only the keys below ``bags`` are looked at.

    Raises:
        ConfigError: the bags do not go together.
    """
    told = f"The trial with {words(point)}"
    tree = {BAGS: config.bags.model_dump(mode="json")}
    own = {key: value for key, value in point.items() if key.split(".")[0] == BAGS}
    _put_all(tree, config, own, told)
    return len(validate(BagsConfig, tree[BAGS], told).resolved())


def can_have(config: SweepConfig, parameter: ParameterConfig, point: Point) -> bool:
    """Whether a value can be chosen: always, but for weights of bags that do not go together.

    A trial of such bags fails by itself, see `trial_config`; an error here would end the search of all others.
    """
    if parameter.simplex is None:
        return True
    try:
        member_count(config, point)
    except ConfigError:
        return False
    return True


def training_part(point: Point) -> Point:
    """The parameters that decide which members are trained."""
    return {key: value for key, value in point.items() if decides_members(key)}


def applies(parameter: ParameterConfig, point: Point) -> bool:
    """Whether a point has the values that a parameter depends on."""
    return all(other in point and label(point[other]) in map(label, wanted) for other, wanted in parameter.when.items())


def as_listed(config: SweepConfig, point: Point) -> Point:
    """The point in the order of the space."""
    return {key: point[key] for key in config.sweep.space if key in point}


def words(point: Mapping[str, Any]) -> str:
    """A point in one line."""
    return ", ".join(f"{key}={label(value)}" for key, value in point.items()) or "no parameter"


def field_of(key: str) -> FieldInfo | None:
    """The field of the run that a key names; None for an unknown one and for what is inside lists or free mappings."""
    section: type[Section] | None = RunConfig
    found: FieldInfo | None = None
    for name in key.split("."):
        found = section.model_fields.get(name) if section else None
        section = _section(found)
    return found


def _section(field: FieldInfo | None) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    annotations = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((one for one in annotations if isinstance(one, type) and issubclass(one, Section)), None)


def _put_all(tree: dict[str, Any], config: SweepConfig, point: Point, told: str) -> None:
    """Put the values into the plain data of a run, whole sections before keys inside them."""
    grouped = isinstance(point.get(WEIGHTS), dict)  # weights of groups are no single key
    own = {key: config.sweep.space[key].value(value) for key, value in point.items() if key != WEIGHTS or not grouped}
    put_values(tree, own, told)


def put_values(tree: dict[str, Any], values: Mapping[str, Any], told: str) -> None:
    """Put values into the plain data of a run by their keys, whole sections before keys inside them.

    A mapping for a section changes the keys that it has and leaves the others; ratios replace bags by name.

    Args:
        tree: the run; changed.
        values: key with dots to its value.
        told: what to call it in errors.

    Raises:
        ConfigError: a key leads into a list that has no such item.
    """
    for key in sorted(values, key=lambda key: key.count(".")):
        value = values[key]
        _put(tree, key, value, told)
        if key == RATIOS or (key == BAGS and isinstance(value, dict) and "members" not in value and "ratios" in value):
            tree[BAGS]["members"] = []


def _put(tree: dict[str, Any], key: str, value: Any, told: str) -> None:
    """Put one value in; names in free mappings may have dots, so what is no section ends the way there."""
    node: Any = tree
    rest = key.split(".")
    while len(rest) > 1:
        name: Any = int(rest[0]) if isinstance(node, list) and rest[0].isdecimal() else rest[0]
        if isinstance(node, list) and not (isinstance(name, int) and name < len(node)):
            raise ConfigError(f"{told}: {key} has no item {rest[0]}; there are {len(node)}, counted from 0.")
        inner = node[name] if isinstance(node, list) else node.get(name)
        if inner is None and _section(field_of(key.removesuffix("." + ".".join(rest[1:])))):
            inner = node[name] = {}  # an optional section that the run does not have
        if not isinstance(inner, dict | list):
            break
        node, rest = inner, rest[1:]
    if isinstance(node, list):
        raise ConfigError(f"{told}: {key} is one item of a list; search the whole list, or a key of the item.")
    node[".".join(rest)] = _merged(_section(field_of(key)), node.get(".".join(rest)), value)


def _merged(section: type[Section] | None, old: Any, new: Any) -> Any:
    if section is None or not isinstance(old, dict) or not isinstance(new, dict):
        return new
    fields = section.model_fields
    return old | {name: _merged(_section(fields.get(name)), old.get(name), value) for name, value in new.items()}


def _rule(group: str, weights: list[float]) -> dict[str, Any]:
    where: dict[str, Any] = {"layers": group} if LAYERS.fullmatch(group) else {"tensors": [group]}
    return where | {"weights": weights}
