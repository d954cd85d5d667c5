"""The loss of a dataset."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from boom_ray.config.section import KeyedError, Section

GRADED = frozenset({"cosent", "angle"})
Kind = Literal["infonce", "cosent", "angle", "kl", "margin_mse"]
Direction = Literal["query_to_passage", "passage_to_query", "query_to_query", "passage_to_passage"]
Partition = Literal["joint", "per_direction"]
Mask = Literal["positives", "duplicates", "labels"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
MASKS: tuple[Mask, ...] = get_args(Mask)
CONTRASTIVE = frozenset({"temperature", "directions", "partition", "mask", "margin"})
USED: dict[Kind, frozenset[str]] = {
    "infonce": CONTRASTIVE,
    "cosent": frozenset({"temperature"}),
    "angle": frozenset({"temperature"}),
    "kl": frozenset({"temperature", "teacher_temperature", "contrastive_weight"}),
    "margin_mse": frozenset({"contrastive_weight"}),
}
"""The fields that each kind reads; with a contrastive_weight also those of infonce."""


class LossConfig(Section):
    """What the examples of a dataset are trained with; formulas in `boom_ray.model.losses`."""

    kind: Kind = Field(
        "infonce",
        description="infonce; cosent or angle for graded pairs (score); kl or margin_mse after a teacher's scores",
    )
    temperature: Annotated[float, Field(gt=0)] | None = Field(
        None, description="divides the cosine; null: training.temperature, for cosent and angle 0.05"
    )
    directions: tuple[Direction, ...] = Field(
        ("query_to_passage",), description="infonce: what is compared with what; query_to_passage is one of them"
    )
    partition: Partition = Field(
        "joint", description="infonce: one softmax over all directions (joint), or one for each, averaged"
    )
    mask: tuple[Mask, ...] = Field(MASKS, description="infonce: what is known of a candidate that makes it no negative")
    margin: float | None = Field(
        None,
        ge=-2,
        le=2,
        description="infonce: leave out candidates closer to the query than its positive by more; cosine",
    )
    teacher_temperature: float = Field(1.0, gt=0, description="kl: divides the teacher's scores")
    contrastive_weight: float = Field(0.0, ge=0, description="kl, margin_mse: so much of infonce is added")

    @property
    def is_graded(self) -> bool:
        """Whether it compares graded pairs, so that a pair of any score is an example."""
        return self.kind in GRADED

    @property
    def is_taught(self) -> bool:
        """Whether it follows a teacher's scores."""
        return self.kind in {"kl", "margin_mse"}

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        for name in ("directions", "mask"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise KeyedError(name, f"nothing may be in it twice (got {', '.join(values)})")
        if DIRECTIONS[0] not in self.directions:
            raise KeyedError("directions", f"must contain {DIRECTIONS[0]}, where the positive pair is")
        without_pair = set(self.directions) & {"query_to_query", "passage_to_passage"}
        if self.partition == "per_direction" and without_pair:
            raise KeyedError(
                "partition", f"must be joint with {' and '.join(sorted(without_pair))}, where the positive pair is not"
            )
        return self

    @model_validator(mode="after")
    def _no_field_is_idle(self) -> Self:
        used = USED[self.kind] | (CONTRASTIVE if self.contrastive_weight else frozenset())
        for name, info in type(self).model_fields.items():
            if name != "kind" and name not in used and getattr(self, name) != info.default:
                more = " without a contrastive_weight" if self.is_taught and name in CONTRASTIVE else ""
                raise KeyedError(name, f"has no effect with kind {self.kind}{more}; remove it or choose another kind")
        return self
