"""The base of all configuration sections: frozen, no unknown keys, and aware of which fields decide content."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One section of the YAML. Unknown keys are refused; instances cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def identity(self) -> dict[str, Any]:
        """The fields that determine an artifact's content, as JSON; fields made by `runtime` are left out."""
        result: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            if isinstance(extra, dict) and extra.get("runtime"):
                continue
            result[name] = _plain(getattr(self, name))
        return result


class KeyedError(ValueError):
    """A fault of a key inside the section that a validator looks at as a whole.

    Attributes:
        key: the key with dots, counted from that section.
        message: what is wrong with it.
    """

    def __init__(self, key: str, message: str) -> None:
        """The text is both."""
        super().__init__(f"{key}: {message}")
        self.key, self.message = key, message


def runtime(default: Any, description: str, **constraints: Any) -> Any:
    """A field that says how or where something runs and never changes the result; it is in no artifact's key."""
    return Field(default, description=description, json_schema_extra={"runtime": True}, **constraints)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
