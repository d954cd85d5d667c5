"""What models are evaluated on."""

from __future__ import annotations

from pathlib import Path
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
    extra_splits: tuple[str, ...] = Field((), description="more splits of mteb's task; its score is the mean over all")
    subsets: tuple[str, ...] = Field((), description="subsets (languages) of mteb's task to evaluate; empty: all")
    overlaps: tuple[str, ...] = runtime(
        (), "training datasets of the same source: a model trained on one of them is in domain here"
    )
    instruction: str = Field("", description="instruction of the queries, put into the model's query_template")
    passage_instruction: str = Field("", description="instruction of the passages, for the model's passage_template")
    score_range: tuple[float, float] = Field((0.0, 5.0), description="lowest and highest score of an sts folder")
    max_clustered: int = Field(
        16_384, ge=2, description="most texts of a clustering folder that are embedded, drawn by seed; texts"
    )
    size: int | None = Field(
        None, ge=2, description="most queries or rows of a folder, for quick proxies in sweeps; null: all"
    )
    language: str = Field(
        "eng-Latn",
        description="language (ISO 639-3) and script of a folder's texts, for mteb's result files",
        pattern=r"^[a-z]{3}-[A-Z][a-z]{3}$",
    )

    @property
    def data(self) -> tuple[Path, str]:
        """What tells the data of two folders apart."""
        return (Path(self.path or ""), self.split)

    @model_validator(mode="after")
    def _folder_has_type(self) -> Self:
        if self.path is not None and self.type is None:
            raise ValueError(f"task {self.name}: a folder needs its type")
        if self.path is not None and (self.subsets or self.extra_splits):
            raise ValueError(f"task {self.name}: a folder has no subsets and one split")
        if self.path is None and self.size is not None:
            raise ValueError(f"task {self.name}: mteb's own tasks have no size; save it as a folder and set its path")
        if self.score_range[0] >= self.score_range[1]:
            raise ValueError(f"task {self.name}: score_range must be [lowest, highest] with lowest < highest")
        return self


class BenchmarkConfig(Section):
    """One of mteb's benchmarks; its tasks join a group."""

    name: str = Field(description="as mteb calls it, e.g. MTEB(eng, v2), MTEB(Code, v1), RTEB(beta)")
    group: Literal["in_domain", "out_of_domain"] = Field(
        "out_of_domain", description="which tasks they are reported as"
    )
    types: tuple[str, ...] = Field((), description="only tasks of these mteb types, e.g. Retrieval; empty: all")
    without: tuple[str, ...] = Field((), description="names of tasks to leave out")


class EvaluationConfig(Section):
    """Reported tasks in two groups, in-domain like the training data and the other not, and tasks to choose by."""

    in_domain: tuple[TaskConfig, ...] = Field((), description="tasks like those trained on")
    out_of_domain: tuple[TaskConfig, ...] = Field((), description="tasks unlike those trained on")
    benchmarks: tuple[BenchmarkConfig, ...] = Field((), description="whole benchmarks of mteb; tasks above go first")
    selection: tuple[TaskConfig, ...] = Field(
        (), description="tasks that greedy_soup chooses members by; never reported, so that no score is chosen"
    )
    seed: int = Field(42, description="seed of the probes in classification and clustering tasks")
    batch_size: int = runtime(64, "texts per forward pass", ge=1)
    actors: int | None = runtime(None, "evaluation actors; null: as many as fit", ge=1)
    cpus_per_actor: float = runtime(1, "CPU cores of an actor", gt=0)
    gpus_per_actor: float = runtime(0, "GPUs of an actor", ge=0)
    precision: Literal["float32", "bfloat16"] = Field("float32", description="type of the forward pass")

    @property
    def tasks(self) -> tuple[TaskConfig, ...]:
        """The tasks that are reported."""
        return (*self.in_domain, *self.out_of_domain)

    @property
    def all_tasks(self) -> tuple[TaskConfig, ...]:
        """Those and the ones to choose by; training data must hold none of their texts."""
        return (*self.tasks, *self.selection)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [task.name for task in self.all_tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task names must be unique; used twice: {', '.join(twice)}")
        for task in self.selection:
            same = [one.name for one in self.tasks if one.path is not None and one.data == task.data]
            if same:
                raise ValueError(f"selection task {task.name} is the data of the reported task {same[0]}; take others")
        return self
