"""The merge: how members become one model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.section import Section, runtime


class MergeConfig(Section):
    """A recipe: method, weights and parameters."""

    method: Literal["linear", "task_arithmetic", "multislerp"] = Field("multislerp", description="merge method")
    weights: Literal["equal", "size"] | tuple[float, ...] = Field(
        "equal", description="equal, size (by the members' numbers of examples), or one number per member"
    )
    base: Literal["none", "base"] = Field(
        "none",
        description="multislerp works on whole weights (none) or on their differences from the base model (base)",
    )
    scale: float = Field(1.0, description="lambda of task_arithmetic: length of the merged difference")
    output_dtype: Literal["members", "float32", "bfloat16", "float16"] = Field(
        "members", description="type of the saved weights"
    )
    chunk_mb: int = runtime(64, "bytes of one tensor chunk in memory per member; MiB", ge=1)

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if isinstance(self.weights, tuple):
            if any(weight < 0 for weight in self.weights):
                raise ValueError("weights must not be negative")
            if sum(self.weights) <= 0:
                raise ValueError("weights sum to zero; at least one must be positive")
        return self
