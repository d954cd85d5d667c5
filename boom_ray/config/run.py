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
from boom_ray.config.schedule import EVEN
from boom_ray.config.section import Section
from boom_ray.config.training import ELASTIC_DROPOUT, TrainingConfig


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
        mixture = self.bags.mixture
        for field, names in (("caps", mixture.caps), ("weights", mixture.weights)):
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"bags.mixture.{field} names {name}, which is none of the datasets {sorted(known)}"
                    )
        self.bags.check_datasets(self.corpus.datasets)
        if self.training.branches and self.bags.schedule.kind not in EVEN:
            raise ValueError(
                f"training.branches=true takes the first steps of a plan for a sample of all, which those of "
                f"bags.schedule={self.bags.schedule.kind} are not; use one of {', '.join(sorted(EVEN))}"
            )
        self.model.check_instructions(self.corpus.datasets)
        self._check_scores()
        self._check_losses()
        return self

    def _check_losses(self) -> None:
        lora = self.model.lora
        if lora is not None and lora.dropout > 0 and not isinstance(self.training.resources.workers, int):
            raise ValueError(ELASTIC_DROPOUT)
        for dataset in self.corpus.datasets:
            if self.training.negatives == 0 and dataset.loss.kind == "infonce" and not dataset.uses_in_batch:
                raise ValueError(
                    f"dataset {dataset.name} has only its own negatives (in_batch: false), and training.negatives=0 "
                    f"leaves none: its loss would be 0"
                )

    def _check_scores(self) -> None:
        wanted = self.training.scores
        if wanted is None:
            return
        known = [task.name for task in self.evaluation.all_tasks]
        for name in wanted.tasks:
            if name not in known:
                raise ValueError(f"training.scores.tasks names {name}, which is none of the evaluation tasks {known}")
        if not wanted.tasks and not (self.evaluation.selection or self.evaluation.in_domain):
            raise ValueError("training.scores needs tasks: give evaluation.selection or evaluation.in_domain")
