"""The whole configuration of `jobs/merge.py`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from boom_ray.config.cluster import ClusterConfig, TrackingConfig
from boom_ray.config.corpus import CorpusConfig
from boom_ray.config.evaluation import EvaluationConfig
from boom_ray.config.merge import MergeConfig
from boom_ray.config.model import TEXT, ModelConfig
from boom_ray.config.section import Section, runtime
from boom_ray.config.training import MatryoshkaConfig, TrainingConfig

TAKEN = frozenset({"base", "merged"})
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
MODEL_FORMS = "a local folder, artifact:KIND/KEY of the store, a hub name, or embedded:NAME"


class MemberConfig(Section):
    """One model to merge; a text alone is its path."""

    path: str = Field(min_length=1, description=f"{MODEL_FORMS}; sentence-transformers, transformers or LoRA adapter")
    name: str | None = Field(None, pattern=NAME, description="what it is called in reports; null: its folder's name")
    examples: int | None = Field(
        None, ge=0, description="examples it was trained on, for weights: size; null: as its artifact says"
    )


class FolderModelConfig(Section):
    """How the models' hidden states become an embedding, where their folders do not say."""

    pooling: Literal["cls", "mean", "lasttoken"] | None = Field(
        None, description="how token states become one vector; needed for plain transformers folders"
    )
    normalize: bool = Field(True, description="scale embeddings to length 1 when the training loss is computed")
    append_eos: bool | None = Field(
        None, description="end every text with the end-of-sequence token; null: if pooling is lasttoken"
    )
    query_template: str = Field(
        TEXT, description="{task} and {text} of a query, e.g. 'Instruct: {task}\\nQuery: {text}'"
    )
    passage_template: str = Field(TEXT, description="{text} of a passage of an asymmetric task")

    def full(self) -> ModelConfig:
        """The same as the section that training and evaluation read."""
        return ModelConfig(**self.model_dump())

    @model_validator(mode="after")
    def _templates(self) -> Self:
        self.full()
        return self


class TrainedLossConfig(Section):
    """How members were trained, for methods that look at data; the loss itself is a field of every dataset."""

    temperature: float = Field(0.02, gt=0, description="InfoNCE's temperature; divides the cosine")
    negatives: int = Field(7, ge=0, description="hard negatives per query; texts")
    matryoshka: MatryoshkaConfig | None = Field(None, description="widths that the first coordinates were trained at")
    precision: Literal["bfloat16", "float32"] = Field("float32", description="type of the forward pass")
    micro_batch_tokens: int | None = runtime(None, "most tokens of one forward pass; null: 4096", ge=64)

    def full(self) -> TrainingConfig:
        """The same as the section of training."""
        return TrainingConfig(**self.model_dump())


class MergeJobConfig(Section):
    """One merge of models that exist."""

    name: str = Field(description="name of the run in MLflow and of the model in the store", pattern=NAME)
    store: str = Field("store", description="directory or URL of all artifacts; every machine must see it")
    members: tuple[MemberConfig, ...] = Field(description="the models to merge", min_length=1)
    base: str | None = Field(None, description=f"the model that the members were trained from: {MODEL_FORMS}")
    merge: MergeConfig = Field(MergeConfig(), description="how they become one model")
    model: FolderModelConfig = Field(FolderModelConfig(), description="what the models' folders do not say")
    corpus: CorpusConfig | None = Field(
        None, description="training data, for methods that look at data (fisher, regmean, self_positioning)"
    )
    loss: TrainedLossConfig = Field(TrainedLossConfig(), description="training loss, for methods that look at data")
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(),
        description="what members, base and merged model are scored on; greedy_soup needs selection",
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="where it is logged")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where it runs")
    dry_run: bool = runtime(False, "say what would be done and end; nothing is written")

    @field_validator("members", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"path": one} if isinstance(one, str) else one for one in value]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [member.name for member in self.members if member.name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"members must have different names; used twice: {', '.join(twice)}")
        taken = sorted(TAKEN.intersection(names))
        if taken:
            raise ValueError(f"the name {taken[0]} stands for something else; call the member differently")
        self.model.full().check_instructions(self.corpus.datasets if self.corpus else ())
        for where, weights in self._weights():
            if isinstance(weights, tuple) and len(weights) != len(self.members):
                raise ValueError(f"{where} has {len(weights)} numbers for {len(self.members)} members")
        return self

    def _weights(self) -> list[tuple[str, Any]]:
        rules = [(f"merge.rules.{place}.weights", rule.weights) for place, rule in enumerate(self.merge.rules)]
        return [("merge.weights", self.merge.weights), *rules]
