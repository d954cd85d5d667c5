"""The whole configuration of `jobs/update.py`: new data for a model that exists, and how it becomes part of it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.cluster import ClusterConfig, TrackingConfig
from boom_ray.config.corpus import DatasetConfig, NearDuplicatesConfig
from boom_ray.config.evaluation import BenchmarkConfig, TaskConfig
from boom_ray.config.merge import MergeConfig
from boom_ray.config.merge_job import NAME
from boom_ray.config.section import KeyedError, Section, runtime

FULL = "full-retraining"
TAKEN = frozenset({"base", "merged", "before", "update", "after", FULL})


class NewDataConfig(Section):
    """The new datasets; whatever else is null is as in the run that is updated."""

    datasets: tuple[DatasetConfig, ...] = Field(description="the new datasets, and only these", min_length=1)
    max_query_tokens: int | None = Field(None, description="may be given, but must be what the run has; tokens")
    max_passage_tokens: int | None = Field(None, description="may be given, but must be what the run has; tokens")
    max_negatives: int | None = Field(None, ge=0, description="most negatives kept per new example; texts")
    on_bad_row: Literal["error", "reject"] | None = Field(None, description="what a bad row does")
    decontaminate: bool | None = Field(None, description="drop new examples that are texts of an evaluation set")
    near_duplicates: NearDuplicatesConfig | None = Field(None, description="drop those that nearly are, too")
    fragment_mb: int | None = runtime(None, "bytes read by one Ray task at a time; MiB", ge=1)

    def changes(self) -> dict[str, Any]:
        """The keys of the run's corpus section that are given here, without the datasets; JSON values."""
        given = self.model_dump(mode="json", exclude={"datasets"})
        return {name: value for name, value in given.items() if value is not None}


class NewTasksConfig(Section):
    """Tasks to evaluate on beside those of the run; whatever else is null is as in the run that is updated."""

    in_domain: tuple[TaskConfig, ...] = Field(
        (), description="tasks like the new data; may name a task of the run, which is then reported as new"
    )
    out_of_domain: tuple[TaskConfig, ...] = Field((), description="more tasks unlike all data")
    benchmarks: tuple[BenchmarkConfig, ...] = Field((), description="whole benchmarks of mteb")
    selection: tuple[TaskConfig, ...] = Field((), description="more tasks that greedy_soup chooses by; not reported")
    batch_size: int | None = runtime(None, "texts per forward pass", ge=1)
    actors: int | None = runtime(None, "evaluation actors", ge=1)
    cpus_per_actor: float | None = runtime(None, "CPU cores of an actor", gt=0)
    gpus_per_actor: float | None = runtime(None, "GPUs of an actor", ge=0)

    def settings(self) -> dict[str, Any]:
        """How tasks are run, as far as it is given here."""
        names = ("batch_size", "actors", "cpus_per_actor", "gpus_per_actor")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class UpdateConfig(Section):
    """One update: new data + the core of the old → update member → merged into the current model → scores."""

    name: str = Field(description="name of the update in MLflow and of the model in the store", pattern=NAME)
    store: str = Field("store", description="directory or URL of all artifacts; must be that of the run")
    current: str = Field(
        min_length=1,
        description="what is updated: the name of a run or of an earlier update, or artifact:lineage/KEY",
    )
    corpus: NewDataConfig = Field(description="what is new")
    training: dict[str, Any] = Field(
        {}, description="what differs from the run's training section, e.g. {learning_rate: 1.0e-5}"
    )
    merge: MergeConfig = Field(MergeConfig(), description="how the current model and the update member become one")
    from_members: bool = Field(
        False, description="merge all members so far and the new one instead of the current model and the new one"
    )
    evaluation: NewTasksConfig = Field(NewTasksConfig(), description="tasks beside those of the run")
    full_retraining: bool = Field(
        False, description="also train one member on everything, old and new, to compare with: costs a full run"
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="where it is logged")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where it runs")
    dry_run: bool = runtime(False, "say what would be done and end; nothing is written")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name in TAKEN:
            raise KeyedError("name", f"{self.name} stands for something else in reports; call the update differently")
        if self.name == self.current:
            raise KeyedError(
                "name",
                f"an update needs a name of its own: {self.name} stays what it is, and an update of the update could "
                f"not be told from one of the run",
            )
        names = [dataset.name for dataset in self.corpus.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise KeyedError("corpus.datasets", f"names must be unique; used twice: {', '.join(twice)}")
        if isinstance(self.merge.weights, tuple) and not self.from_members and len(self.merge.weights) != 2:
            raise KeyedError(
                "merge.weights",
                f"two models are merged, the current one and the update member; got {len(self.merge.weights)} numbers",
            )
        return self
