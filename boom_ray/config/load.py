"""YAML files plus ``a.b=c`` overrides to frozen models, with errors that name the key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from boom_ray.config.section import Section
from boom_ray.errors import ConfigError

S = TypeVar("S", bound=Section)


def load_config(schema: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply overrides, validate.

    Args:
        schema: model of the whole file.
        path: YAML file; ``${oc.env:NAME,default}`` and ``${other.key}`` are resolved.
        overrides: ``a.b=c`` with YAML values; list items by index, ``corpus.datasets.0.name=x``.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest known one) or wrong value, each with its key.
    """
    try:
        tree = OmegaConf.load(path)
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals or not key:
                raise ConfigError(f"Override '{override}' is not of the form key=value, e.g. training.epochs=2.")
            OmegaConf.update(tree, key, yaml.safe_load(value), merge=True, force_add=True)
        data = OmegaConf.to_container(tree, resolve=True)
    except FileNotFoundError as error:
        raise ConfigError(f"No configuration file at {path}; the ready-made ones are in conf/.") from error
    except (yaml.YAMLError, OmegaConfBaseException, IndexError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return validate(schema, data, str(path))


def validate(schema: type[S], data: Any, origin: str) -> S:
    """Validate plain data against a section; ``origin`` names its source in errors.

    Raises:
        ConfigError: with one line per fault.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{origin} must hold keys and values at its top level.")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        lines = [_describe(schema, fault) for fault in error.errors()]
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def to_yaml(config: Section) -> str:
    """The resolved configuration as YAML, every default included; loading it gives the same configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _describe(schema: type[Section], fault: Any) -> str:
    loc = fault["loc"]
    where = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        known = list(_section_at(schema, loc[:-1]).model_fields)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{where}: is required"
    message = fault["msg"].removeprefix("Value error, ")
    got = "" if fault["type"] == "value_error" else f" (got {fault['input']!r})"
    return f"{where}: {message}{got}" if where else f"{message}{got}"


def _section_at(schema: type[Section], loc: Sequence[str | int]) -> type[Section]:
    """The section class that a pydantic error location points into."""
    current: type[Section] = schema
    for part in loc:
        if isinstance(part, str) and part in current.model_fields:
            inner = _inner_section(current.model_fields[part].annotation)
            current = inner or current
    return current


def _inner_section(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, list, dict, Union, types.UnionType):
        for argument in get_args(annotation):
            found = _inner_section(argument)
            if found is not None:
                return found
    return None
