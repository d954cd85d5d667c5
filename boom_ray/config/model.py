"""The base model and how it becomes an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from boom_ray.config.section import Section, runtime

TEXT = "{text}"
TASK = "{task}"
Rank = Annotated[int, Field(ge=1)]
Alpha = Annotated[float, Field(gt=0)]


class Instructed(Protocol):
    """A dataset, as far as templates care."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def instruction(self) -> str:
        """Of its queries."""

    @property
    def passage_instruction(self) -> str:
        """Of its passages."""


class LoraConfig(Section):
    """Low-rank adapters (peft); folded into the weights when a member is saved."""

    rank: int = Field(32, ge=1, description="rank r of the update B·A")
    alpha: float = Field(32.0, gt=0, description="scale numerator; the update is alpha/rank · B·A")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before A, probability")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="names of the linear layers that get an adapter"
    )
    exclude: tuple[str, ...] = Field((), description="names of layers among the targets that get none")
    layers: tuple[int, ...] = Field((), description="numbers of the blocks that get adapters, from 0; empty: all")
    rank_pattern: dict[str, Rank] = Field({}, description="layer name or regular expression to a rank of its own")
    alpha_pattern: dict[str, Alpha] = Field({}, description="layer name or regular expression to an alpha of its own")
    rslora: bool = Field(False, description="scale by alpha/sqrt(rank) instead (Kalajdzievski 2023)")
    dora: bool = Field(False, description="learn lengths of the weights' columns apart (DoRA, Liu et al. 2024)")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="which biases are trained, too")
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = Field(
        "default", description="first values of A and B; in pissa and olora they are taken out of the base's weights"
    )
    modules_to_save: tuple[str, ...] = Field((), description="layers trained in full beside the adapters")

    @model_validator(mode="after")
    def _exclude_needs_names(self) -> Self:
        both = sorted(set(self.exclude) & set(self.targets)) if self.targets != "all-linear" else []
        if both:
            raise ValueError(f"lora.exclude names {both[0]}, which lora.targets names as well; drop one of them")
        return self


class DenseConfig(Section):
    """A linear layer between pooling and normalisation, added to the base with seeded first weights."""

    dimension: int = Field(ge=1, description="width of its output, that is of the embeddings after the last one")
    bias: bool = Field(True, description="with a bias")
    activation: Literal["tanh", "identity", "relu", "gelu"] = Field("identity", description="what follows it")


class ModelConfig(Section):
    """The base every member starts from, and how its hidden states become an embedding."""

    base: str = Field(
        "embedded:all-MiniLM-L6-v2",
        description="local folder or hub name of a sentence-transformers or transformers model; embedded: from PyPI",
    )
    revision: str | None = Field(None, description="revision on the hub")
    pooling: Literal["cls", "mean", "lasttoken"] | None = Field(
        None, description="how token states become one vector; null: as the folder says, mean if it says nothing"
    )
    dense: tuple[DenseConfig, ...] = Field(
        (), description="linear layers after pooling, added after those that the folder has"
    )
    normalize: bool = Field(True, description="scale embeddings to length 1")
    append_eos: bool | None = Field(
        None, description="end every text with the end-of-sequence token; null: if pooling is lasttoken"
    )
    query_template: str = Field(
        TEXT, description="{task} and {text} of a query, e.g. 'Instruct: {task}\\nQuery: {text}'"
    )
    passage_template: str = Field(
        TEXT, description="{text}, and if datasets have a passage_instruction {task}, of an asymmetric task's passage"
    )
    lora: LoraConfig | None = Field(None, description="train low-rank adapters instead of all weights")
    frozen: tuple[str, ...] = Field(
        (), description="parameters that are not trained, as patterns of their names: embeddings.*, *.layer.[0-5].*"
    )
    gradient_checkpointing: bool = runtime(False, "recompute activations in the backward pass to save memory")

    @model_validator(mode="after")
    def _templates(self) -> Self:
        for name in ("query_template", "passage_template"):
            if not getattr(self, name).endswith(TEXT) or getattr(self, name).count(TEXT) != 1:
                raise ValueError(
                    f"{name} must end with {{text}}, and have it once, so that it can be saved as a prompt"
                )
        return self

    def check_instructions(self, datasets: Sequence[Instructed]) -> None:
        """Check that every instruction has a place in a template.

        Raises:
            ValueError: one has none; names the dataset.
        """
        for dataset in datasets:
            for name, said in (("query", dataset.instruction), ("passage", dataset.passage_instruction)):
                if said and TASK not in getattr(self, f"{name}_template"):
                    what = "an instruction" if name == "query" else "a passage_instruction"
                    raise ValueError(
                        f"dataset {dataset.name} has {what}, but model.{name}_template has no {TASK} to put it in"
                    )

    def query_prompt(self, instruction: str) -> str:
        """What stands before a query's text."""
        return self.query_template.removesuffix(TEXT).replace(TASK, instruction)

    def passage_prompt(self, instruction: str = "") -> str:
        """What stands before a passage's text."""
        return self.passage_template.removesuffix(TEXT).replace(TASK, instruction)
