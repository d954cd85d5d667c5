"""How the examples of a bag become steps, and in which order steps come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from boom_ray.config.corpus import DatasetConfig, TaskType
from boom_ray.config.section import KeyedError, Section

ScheduleKind = Literal[
    "batch-level-shuffling",
    "dataset-sequential",
    "task-sequential",
    "two-stage",
    "example-mixing",
    "round-robin",
    "temperature-proportional",
]
Order = Literal["name", "size-ascending", "size-descending", "random", "given"]
PLAIN: ScheduleKind = "batch-level-shuffling"
ORDERED = frozenset({"dataset-sequential", "task-sequential", "round-robin"})
USED: dict[str, frozenset[str]] = {
    **dict.fromkeys(ORDERED, frozenset({"order", "names"})),
    "two-stage": frozenset({"stages"}),
    "temperature-proportional": frozenset({"temperature"}),
}
"""The fields that each kind reads besides ``kind``."""
EVEN = frozenset({PLAIN, "temperature-proportional", "example-mixing"})
"""The kinds whose first steps are a sample of all."""
RETRIEVAL: tuple[TaskType, ...] = ("retrieval", "reranking")


class StageConfig(Section):
    """A stage of a two-stage schedule: steps of some datasets, with a learning-rate curve of their own."""

    name: str = Field(description="unique name of the stage", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    datasets: tuple[str, ...] = Field((), description="names of its datasets; if task_types is empty, too: all")
    task_types: tuple[TaskType, ...] = Field((), description="all datasets of these task types are in it, too")
    epochs: int | None = Field(None, ge=1, description="passes over its datasets; null: training.epochs")
    learning_rate: float | None = Field(None, gt=0, description="its peak; null: training.learning_rate")
    share: float = Field(
        1.0, gt=0, le=1, description="share of each dataset's steps that a pass takes, drawn anew in every pass"
    )

    def chosen(self, datasets: Sequence[DatasetConfig]) -> tuple[str, ...]:
        """Names of those of the datasets that it trains on, in their order."""
        everything = not self.datasets and not self.task_types
        return tuple(
            one.name for one in datasets if everything or one.name in self.datasets or one.task_type in self.task_types
        )


USUAL_STAGES = (StageConfig(name="retrieval", task_types=RETRIEVAL), StageConfig(name="all"))


class ScheduleConfig(Section):
    """How examples become steps; what each kind does in detail is said in `boom_ray.bags.schedules`."""

    kind: ScheduleKind = Field(PLAIN, description="the schedule; instead of the section its kind alone may be given")
    order: Order = Field("name", description="sequential kinds and round-robin: which dataset or task type comes first")
    names: tuple[str, ...] = Field((), description="order=given: all datasets, or with task-sequential all task types")
    stages: tuple[StageConfig, ...] = Field(
        (), description="two-stage: one after the other; empty: first retrieval and reranking, then everything"
    )
    temperature: float = Field(
        2.0, ge=1, description="temperature-proportional: n examples get steps in proportion to n^(1/temperature)"
    )

    @property
    def is_plain(self) -> bool:
        """Whether it is batch-level shuffling."""
        return self.kind == PLAIN

    @property
    def all_stages(self) -> tuple[StageConfig, ...]:
        """The stages of a two-stage schedule, the usual ones if none are given."""
        return self.stages or USUAL_STAGES

    def identity(self) -> dict[str, Any]:
        """The kind and the fields that it reads."""
        used = USED.get(self.kind, frozenset())
        return {name: value for name, value in super().identity().items() if name == "kind" or name in used}

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_field_is_idle(self) -> Self:
        for name, info in type(self).model_fields.items():
            if name != "kind" and name not in USED.get(self.kind, ()) and getattr(self, name) != info.default:
                raise KeyedError(name, f"has no effect with kind {self.kind}; remove it or choose another kind")
        if (self.order == "given") != bool(self.names):
            raise KeyedError("names", "give names together with order: given, and only then")
        for key, names in (("names", self.names), ("stages", tuple(one.name for one in self.stages))):
            if len(set(names)) < len(names):
                raise KeyedError(key, f"every name once (got {', '.join(names)})")
        return self

    def check(self, datasets: Sequence[DatasetConfig]) -> None:
        """Check names against the corpus.

        Raises:
            ValueError: ``names`` lacks a dataset or task type or has one that does not exist, or a stage is empty.
        """
        if self.order == "given":
            self._check_names(datasets)
        if self.kind != "two-stage":
            return
        known = {one.name for one in datasets}
        for stage in self.all_stages:
            strange = [name for name in stage.datasets if name not in known]
            if strange:
                raise ValueError(
                    f"bags.schedule.stages: stage {stage.name} names {strange[0]}, which is none of the datasets "
                    f"{sorted(known)}"
                )
            if not stage.chosen(datasets):
                raise ValueError(
                    f"bags.schedule.stages: stage {stage.name} is empty, for no dataset is of task type "
                    f"{' or '.join(stage.task_types)}; give other stages"
                )

    def _check_names(self, datasets: Sequence[DatasetConfig]) -> None:
        by_task = self.kind == "task-sequential"
        there = sorted({one.task_type if by_task else one.name for one in datasets})
        known = get_args(TaskType) if by_task else there
        what = "task types" if by_task else "datasets"
        for name in self.names:
            if name not in known:
                raise ValueError(f"bags.schedule.names has {name}, which is none of the {what} {list(known)}")
        missing = [name for name in there if name not in self.names]
        if missing:
            raise ValueError(f"bags.schedule.names lacks {missing[0]}; give all {what}: {there}")
