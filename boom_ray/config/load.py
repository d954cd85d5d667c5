"""From YAML files and ``a.b=c`` overrides to frozen models, with errors that name the key."""

from __future__ import annotations

import difflib
import re
import reprlib
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from boom_ray.config.section import KeyedError, Section
from boom_ray.errors import ConfigError

S = TypeVar("S", bound=Section)
EXTENDS = "extends"
EXPECTED = "Input should be "
PLAIN = frozenset({"bool", "int", "float", "str"})


def load_config(schema: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file and those it extends, apply overrides, validate.

    Args:
        schema: model of the whole file.
        path: YAML file; ``${oc.env:NAME,default}`` and ``${other.key}`` are resolved. ``extends: other.yaml`` (or a
            list), relative to the file, reads other files first: sections are merged, lists replaced, the file wins.
        overrides: ``a.b=c`` with YAML values; list items by index, ``corpus.datasets.0.name=x``.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest known one) or wrong value, each with its key.
    """
    tree = _read(Path(path), ())
    for override in overrides:
        _override(tree, override)
    try:
        data = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path} cannot be resolved: {error}") from error
    return validate(schema, data, str(path))


def _read(path: Path, chain: tuple[Path, ...]) -> DictConfig:
    """The tree of a file, merged over those of the files that it extends; ``chain`` are the files that led here."""
    if path.resolve() in chain:
        ring = " → ".join(one.name for one in (*chain, path))
        raise ConfigError(f"{path} extends itself: {ring}. Remove one {EXTENDS}.")
    try:
        tree = OmegaConf.load(path)
    except FileNotFoundError as error:
        by = f", which {chain[-1]} extends" if chain else "; the ready-made ones are in conf/"
        raise ConfigError(f"No configuration file at {path}{by}.") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path} must hold keys and values at its top level.")
    parents = OmegaConf.to_container(tree, resolve=False).pop(EXTENDS, [])
    tree.pop(EXTENDS, None)
    names = [parents] if isinstance(parents, str) else parents
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: {EXTENDS} must be a file name or a list of them (got {parents!r}).")
    trees = [_read(path.parent / name, (*chain, path.resolve())) for name in names]
    try:
        return OmegaConf.merge(*trees, tree) if trees else tree
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path} cannot be merged with what it {EXTENDS}: {error}") from error


def _override(tree: DictConfig, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"Override '{override}' is not of the form key=value, e.g. training.epochs=2.")
    try:
        OmegaConf.update(tree, key, yaml.safe_load(value), merge=True, force_add=True)
    except (yaml.YAMLError, OmegaConfBaseException, IndexError, TypeError, ValueError, AssertionError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"Override '{override}' cannot be applied: {first_line}.") from error


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
        faults = _first_hand(_one_per_union(error.errors()))
        lines = dict.fromkeys(_describe(schema, fault) for fault in faults)
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def to_yaml(config: Section) -> str:
    """The resolved configuration as YAML, every default included; loading it gives the same configuration."""
    plain = _escape(config.model_dump(mode="json"))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)


def _escape(value: Any) -> Any:
    """The value with every literal ``${`` written so that it is no interpolation when it is read again."""
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _first_hand(faults: Sequence[Any]) -> list[Any]:
    """The faults without those that only follow from others: a list is also too short when its items are faulty."""
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(other is not fault and other["loc"][: len(fault["loc"])] == fault["loc"] for other in faults)
    ]


def _one_per_union(faults: Sequence[Any]) -> list[Any]:
    """The faults at the user's own keys; what the alternatives of a union say about one value becomes one fault."""
    plain = Counter(fault["loc"][:-1] for fault in faults if fault["loc"] and fault["loc"][-1] in PLAIN)
    unions: dict[tuple[str | int, ...], list[Any]] = {}
    for fault in faults:
        loc = fault["loc"]
        told_apart = bool(loc) and loc[-1] in PLAIN and plain[loc[:-1]] > 1  # a single int may be a key of that name
        place = next((number for number, part in enumerate(loc) if _is_alternative(part)), len(loc) - told_apart)
        unions.setdefault(loc[:place], []).append(fault | {"loc": loc[:place] + loc[place + 1 :]})
    return [fault for place, group in unions.items() for fault in _of_union(place, group)]


def _of_union(place: tuple[str | int, ...], faults: list[Any]) -> list[Any]:
    """What is wrong inside the alternative that has the value's form; if none has it, what was expected."""
    inside = [fault for fault in faults if len(fault["loc"]) > len(place)]
    if inside or len(faults) == 1:
        return inside or faults
    finite = [fault for fault in faults if fault["type"] == "finite_number"]
    expected = dict.fromkeys(fault["msg"].removeprefix(EXPECTED) for fault in finite or faults)
    return [faults[0] | {"msg": EXPECTED + " or ".join(expected)}]


def _describe(schema: type[Section], fault: Any) -> str:
    loc = fault["loc"]
    where = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_hint(schema, loc)}"
    if fault["type"] == "missing":
        return f"{where}: is required"
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list").replace("Tuple", "List")
    got = "" if fault["type"] == "value_error" else f" (got {reprlib.repr(fault['input'])})"
    separator = "." if isinstance(fault.get("ctx", {}).get("error"), KeyedError) else ": "
    return f"{where}{separator}{message}{got}" if where else f"{message}{got}"


def _is_alternative(part: str | int) -> bool:
    """Whether pydantic put a part into a location to tell the alternatives of a union apart, e.g. ``tuple[float]``."""
    return isinstance(part, str) and part.startswith(("literal[", "tuple[", "list[", "constrained-", "[key]"))


def _hint(schema: type[Section], loc: Sequence[str | int]) -> str:
    """The nearest known key beside an unknown one, else where else a key of that name is, else all known keys."""
    known = list(_section_at(schema, loc[:-1]).model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [path for path in _paths(schema) if path.rsplit(".", 1)[-1] == loc[-1]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"known keys: {', '.join(known)}"


def _paths(schema: type[Section], prefix: str = "") -> Iterator[str]:
    """All keys of a section and of those inside it, with dots."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        inner = _inner_section(info.annotation)
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")


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
