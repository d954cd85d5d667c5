"""The whole configuration of `jobs/evaluate.py`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from boom_ray.config.cluster import ClusterConfig, TrackingConfig
from boom_ray.config.evaluation import EvaluationConfig
from boom_ray.config.merge_job import MODEL_FORMS, NAME, FolderModelConfig
from boom_ray.config.section import Section, runtime


class ModelEntry(Section):
    """One model to evaluate; a text alone is its path."""

    path: str = Field(min_length=1, description=MODEL_FORMS)
    name: str | None = Field(None, pattern=NAME, description="what it is called in reports; null: its folder's name")
    run: str | None = Field(
        None, pattern=NAME, description="models of one run name are seeds of one model: compared by mean and spread"
    )
    cost: float | None = Field(None, ge=0, description="what it cost to make, for the picture of cost and quality")


class EvaluateJobConfig(Section):
    """Models on tasks, and how they compare."""

    name: str = Field(description="name of the run in MLflow", pattern=NAME)
    store: str = Field("store", description="directory or URL of all artifacts; every machine must see it")
    models: tuple[ModelEntry, ...] = Field((), description="the models, the baseline first")
    results: tuple[str, ...] = Field(
        (), description="folders of mteb's result files (model_meta.json, TASK.json…): published models to compare with"
    )
    model: FolderModelConfig = Field(
        FolderModelConfig(), description="templates of prompts; bare: as models store them"
    )
    evaluation: EvaluationConfig = Field(description="the tasks, and how they are run")
    compare: bool = runtime(False, "compare every model with the baseline: intervals, tests, pictures")
    baseline: str | None = Field(None, description="name of the model that others are compared with; null: the first")
    contamination: str | None = Field(
        None, description="artifact:corpus/KEY: report which texts of the tasks that corpus holds"
    )
    export: str | None = Field(None, description="folder that gets mteb's result files, one folder per model")
    card_of: str | None = Field(None, description="name of the model whose scores are written into its model card")
    tracking: TrackingConfig = Field(TrackingConfig(), description="where it is logged")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where it runs")

    @field_validator("models", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"path": one} if isinstance(one, str) else one for one in value]

    @field_validator("contamination")
    @classmethod
    def _is_corpus(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("artifact:corpus/"):
            raise ValueError("must be artifact:corpus/KEY; the corpus stage prints the key, and MLflow has it")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.models and not self.results:
            raise ValueError("there is nothing to evaluate: give models or results")
        names = [model.name for model in self.models if model.name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"models must have different names; used twice: {', '.join(twice)}")
        if not self.evaluation.tasks and not self.evaluation.benchmarks:
            raise ValueError("evaluation names no tasks: fill in_domain, out_of_domain or benchmarks")
        return self
