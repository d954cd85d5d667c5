"""The whole configuration of `jobs/boom.py`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from boom_ray.config.bags import BagsConfig
from boom_ray.config.cluster import ClusterConfig, TrackingConfig
from boom_ray.config.corpus import CorpusConfig
from boom_ray.config.evaluation import EvaluationConfig
from boom_ray.config.merge import MergeConfig
from boom_ray.config.model import ModelConfig
from boom_ray.config.section import Section
from boom_ray.config.training import TrainingConfig


class RunConfig(Section):
    """One BOOM run: corpus → bags → members → merged model → scores."""

    name: str = Field(description="name of the run in MLflow", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    store: str = Field("store", description="directory or URL of all artifacts; every machine must see it")
    seed: int = Field(0, description="seed of bags, order and dropout")
    corpus: CorpusConfig = Field(description="what is trained on")
    model: ModelConfig = Field(ModelConfig(), description="what is trained")
    bags: BagsConfig = Field(BagsConfig(), description="which share each member sees")
    training: TrainingConfig = Field(TrainingConfig(), description="how each member is trained")
    merge: MergeConfig = Field(MergeConfig(), description="how members become one model")
    baseline: bool = Field(True, description="also train on 100 % of the data for comparison, when no bag does")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="what models are evaluated on")
    tracking: TrackingConfig = Field(TrackingConfig(), description="where it is logged")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where it runs")

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.bags.resolved())
        if isinstance(self.merge.weights, tuple) and len(self.merge.weights) != count:
            raise ValueError(f"merge.weights has {len(self.merge.weights)} numbers for {count} bags")
        bags = self.bags.resolved()
        for index, bag in enumerate(bags):
            twin = next((other.name for other in bags[:index] if bag.rule(self.seed) == other.rule(self.seed)), None)
            if twin is not None:
                raise ValueError(f"bags {twin} and {bag.name} are the same draw; give one another draw or seed")
        known = {dataset.name for dataset in self.corpus.datasets}
        for name in self.bags.mixture.caps:
            if name not in known:
                raise ValueError(f"bags.mixture.caps names {name}, which is none of the datasets {sorted(known)}")
        told = next((dataset.name for dataset in self.corpus.datasets if dataset.instruction), None)
        if told is not None and "{task}" not in self.model.query_template:
            raise ValueError(
                f"dataset {told} has an instruction, but model.query_template has no {{task}} to put it in"
            )
        return self
