"""What models are evaluated on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.section import Section, runtime

EvalType = Literal["retrieval", "reranking", "sts", "classification", "clustering", "pair", "bitext"]


class TaskConfig(Section):
    """One evaluation task: a name that mteb knows, or a local folder."""

    name: str = Field(description="mteb's task name, or any name for a folder", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    path: str | None = Field(None, description="folder with the task's files, or embedded:NAME; null: mteb's task NAME")
    type: EvalType | None = Field(None, description="form of the folder; needed with path")
    split: str = Field("test", description="split to evaluate")
    subsets: tuple[str, ...] = Field((), description="subsets (languages) of mteb's task to evaluate; empty: all")
    instruction: str = Field("", description="instruction of the queries, put into the model's query_template")
    score_range: tuple[float, float] = Field((0.0, 5.0), description="lowest and highest score of an sts folder")
    max_clustered: int = Field(
        16_384, ge=2, description="most texts of a clustering folder that are embedded, drawn by seed; texts"
    )
    language: str = Field(
        "eng-Latn",
        description="language (ISO 639-3) and script of a folder's texts, for mteb's result files",
        pattern=r"^[a-z]{3}-[A-Z][a-z]{3}$",
    )

    @model_validator(mode="after")
    def _folder_has_type(self) -> Self:
        if self.path is not None and self.type is None:
            raise ValueError(f"task {self.name}: a folder needs its type")
        if self.path is not None and self.subsets:
            raise ValueError(f"task {self.name}: a folder has no subsets")
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError(f"task {self.name}: score_range must be [lowest, highest] with lowest < highest")
        return self


class EvaluationConfig(Section):
    """Tasks in two groups; what is reported as in-domain must resemble the training data, the other must not."""

    in_domain: tuple[TaskConfig, ...] = Field((), description="tasks like those trained on")
    out_of_domain: tuple[TaskConfig, ...] = Field((), description="tasks unlike those trained on")
    seed: int = Field(42, description="seed of the probes in classification and clustering tasks")
    batch_size: int = runtime(64, "texts per forward pass", ge=1)
    actors: int | None = runtime(None, "evaluation actors; null: as many as fit", ge=1)
    cpus_per_actor: float = runtime(1, "CPU cores of an actor", gt=0)
    gpus_per_actor: float = runtime(0, "GPUs of an actor", ge=0)
    precision: Literal["float32", "bfloat16"] = Field("float32", description="type of the forward pass")

    @property
    def tasks(self) -> tuple[TaskConfig, ...]:
        """All tasks of both groups."""
        return (*self.in_domain, *self.out_of_domain)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task names must be unique; used twice: {', '.join(twice)}")
        return self
