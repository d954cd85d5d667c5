"""The merge: how members become one model."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from boom_ray.config.methods import PARAMETERS
from boom_ray.config.section import KeyedError, Section, runtime

Weights = Literal["equal", "size"] | tuple[float, ...]


class RuleConfig(Section):
    """Other weights or parameters for some tensors; later rules win over earlier ones, field by field."""

    tensors: tuple[str, ...] = Field(
        ("*",), min_length=1, description="tensor names with wildcards, e.g. [embeddings.*, '*.LayerNorm.*']"
    )
    layers: str | None = Field(None, description="only tensors of these layers: a number or a range, e.g. 7 or 0-5")
    weights: Weights | None = Field(None, description="as merge.weights")
    parameters: dict[str, bool | int | float | str] = Field({}, description="as merge.parameters")

    @field_validator("tensors", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("layers", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("layers")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", value)
            if found is None:
                raise ValueError(f"layers are a number or a range, e.g. 7 or 0-5 (got {value!r})")
            if found[2] and int(found[1]) > int(found[2]):
                raise ValueError(f"the range {value} ends before it begins; write {found[2]}-{found[1]}")
        return value

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: Weights | None) -> Weights | None:
        return None if value is None else check_weights(value)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.weights is None and not self.parameters:
            raise ValueError("the rule changes nothing; give it weights or parameters, or remove it")
        return self


class ProbeConfig(Section):
    """The sample of training data that fisher, regmean and learned weights look at."""

    examples: int = Field(512, ge=1, description="examples, spread evenly over the datasets")
    seed: int = Field(0, description="which examples")
    batch: int = Field(32, ge=2, description="examples per step, all of one dataset")
    steps: int = Field(100, ge=1, description="learned weights: steps of gradient descent")
    learning_rate: float = Field(0.05, gt=0, description="learned weights: learning rate of Adam")
    penalty: float = Field(0.05, ge=0, description="learned weights: mu, the price of a long merged difference")
    actors: int | None = runtime(None, "processes that run a member over the sample; null: as many as fit", ge=1)
    gpus_per_actor: float = runtime(0, "GPUs of each of them", ge=0)


class MergeConfig(Section):
    """A recipe: method, weights and parameters."""

    method: str = Field("multislerp", description="merge method, see docs/merging.md")
    weights: Weights = Field(
        "equal", description="equal, size (by the members' numbers of examples), or one number per member"
    )
    base: Literal["none", "base"] = Field(
        "none", description="spherical methods: on whole weights (none) or on differences from the base model (base)"
    )
    parameters: dict[str, bool | int | float | str] = Field(
        {}, description="the method's parameters, e.g. {density: 0.2}"
    )
    rules: tuple[RuleConfig, ...] = Field((), description="other weights or parameters for some tensors")
    merge_dtype: Literal["auto", "float32", "float64"] = Field(
        "auto", description="type of the arithmetic: auto is float32 for 16-bit members and float64 for others"
    )
    output_dtype: Literal["members", "float32", "bfloat16", "float16"] = Field(
        "members", description="type of the saved weights"
    )
    shard_gb: float = Field(5.0, gt=0, description="most bytes of one saved file; 10^9 bytes")
    probe: ProbeConfig = Field(ProbeConfig(), description="sample for the methods that look at data")
    chunk_mb: int = runtime(64, "most bytes of one tensor held in memory per member; MiB", ge=1)
    cpus: int | None = runtime(None, "CPUs of a merge task; default: what a node has, at most 8", ge=1)
    geometry: bool = runtime(True, "report the members' lengths and angles; one pass over them and the base, once")
    distribute_gb: float = runtime(20.0, "merges that read more are spread over tasks, one per saved file; GiB", ge=0)

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        if value not in PARAMETERS:
            near = difflib.get_close_matches(value, PARAMETERS, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(PARAMETERS)}"
            raise ValueError(f"there is no method {value}; {hint}")
        return value

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: Weights) -> Weights:
        return check_weights(value)

    @model_validator(mode="after")
    def _parameters(self) -> Self:
        self.complete_parameters({})
        for number, rule in enumerate(self.rules):
            try:
                self.complete_parameters(rule.parameters)
            except KeyedError as error:
                raise KeyedError(f"rules.{number}.{error.key}", error.message) from None
        return self

    def complete_parameters(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters of the method with their values, some of them changed by a rule.

        Raises:
            KeyedError: an unknown parameter, a value out of bounds, or values that do not go together.
        """
        return complete_parameters(self.method, {**self.parameters, **changes})


def complete_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a method with their values, those that are not given by default.

    Raises:
        KeyedError: an unknown parameter, a value out of bounds, or values that do not go together.
    """
    schema = PARAMETERS[method]
    for name in given:
        if name not in schema.model_fields:
            near = difflib.get_close_matches(name, schema.model_fields, n=1, cutoff=0.6)
            known = f"its parameters: {', '.join(schema.model_fields) or 'none'}"
            known = f"did you mean {near[0]}?" if near else known
            raise KeyedError(f"parameters.{name}", f"{method} has no parameter {name}; {known}")
    try:
        return schema.model_validate(dict(given)).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(["parameters", *(str(part) for part in fault["loc"])])
        got = "" if fault["type"] == "value_error" else f" (got {reprlib.repr(fault['input'])})"
        raise KeyedError(where, fault["msg"].removeprefix("Value error, ") + got) from None


def check_weights(weights: Weights) -> Weights:
    """The weights as they are.

    Raises:
        ValueError: a negative one, or a sum of zero.
    """
    if isinstance(weights, tuple):
        if any(weight < 0 for weight in weights):
            raise ValueError("weights must not be negative")
        if sum(weights) <= 0:
            raise ValueError("weights sum to zero; at least one must be positive")
    return weights
