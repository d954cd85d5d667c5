"""The base model and how a member is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.section import Section, runtime

TEXT = "{text}"
Momentum = Annotated[float, Field(ge=0, lt=1)]


class LoraConfig(Section):
    """Low-rank adapters (peft); folded into the weights when a member is saved."""

    rank: int = Field(32, ge=1, description="rank r of the update B·A")
    alpha: float = Field(32.0, gt=0, description="scale numerator; the update is alpha/rank · B·A")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before A, probability")
    targets: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear", description="names of the linear layers that get an adapter"
    )


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
    normalize: bool = Field(True, description="scale embeddings to length 1")
    append_eos: bool | None = Field(
        None, description="end every text with the end-of-sequence token; null: if pooling is lasttoken"
    )
    query_template: str = Field(
        TEXT, description="{task} and {text} of a query, e.g. 'Instruct: {task}\\nQuery: {text}'"
    )
    passage_template: str = Field(TEXT, description="{text} of a passage of an asymmetric task")
    lora: LoraConfig | None = Field(None, description="train low-rank adapters instead of all weights")
    gradient_checkpointing: bool = runtime(False, "recompute activations in the backward pass to save memory")

    @model_validator(mode="after")
    def _templates(self) -> Self:
        for name in ("query_template", "passage_template"):
            if not getattr(self, name).endswith(TEXT) or getattr(self, name).count(TEXT) != 1:
                raise ValueError(
                    f"{name} must end with {{text}}, and have it once, so that it can be saved as a prompt"
                )
        return self

    def query_prompt(self, instruction: str) -> str:
        """What stands before a query's text."""
        return self.query_template.removesuffix(TEXT).replace("{task}", instruction)

    def passage_prompt(self) -> str:
        """What stands before a passage's text."""
        return self.passage_template.removesuffix(TEXT)


class ResourcesConfig(Section):
    """Where members are trained; nothing here changes what they learn beyond rounding."""

    workers: int = runtime(1, "Ray Train workers per member", ge=1)
    cpus_per_worker: float = runtime(1, "CPU cores of a worker", gt=0)
    gpus_per_worker: float = runtime(0, "GPUs of a worker (a whole number, or a share of one)", ge=0)
    memory_gb_per_worker: float = runtime(1.5, "memory of a worker, to limit how many members run at once; GiB", gt=0)
    accelerator_type: str | None = runtime(None, "Ray accelerator type, e.g. H100")
    max_parallel_members: int | None = runtime(None, "most members at once; null: as many as fit", ge=1)
    max_failures: int = runtime(2, "restarts of a member from its last checkpoint", ge=0)


class TrainingConfig(Section):
    """How every member is trained."""

    epochs: int = Field(1, ge=1, description="passes over the bag")
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps; null: the whole plan")
    batch_size: int = Field(256, ge=2, description="queries per step over all workers; examples")
    negatives: int = Field(7, ge=0, description="hard negatives per query; texts")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay; biases and norms have none")
    betas: tuple[Momentum, Momentum] = Field((0.9, 0.999), description="AdamW's momentum factors")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises from 0")
    decay: Literal["linear", "cosine", "constant"] = Field("linear", description="how the rate falls to 0 after that")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this L2 norm")
    temperature: float = Field(0.02, gt=0, description="InfoNCE's temperature; divides the cosine")
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="type of the forward pass; weights are float32"
    )
    dropout: float | None = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout probability everywhere; null: as the base says; without it the number of workers is free",
    )
    micro_batch_tokens: int = runtime(4096, "tokens (padding included) of one forward pass", ge=64)
    checkpoint_every: int = runtime(200, "steps between checkpoints", ge=1)
    keep_checkpoints: int = runtime(2, "checkpoints kept per member", ge=1)
    log_every: int = runtime(10, "steps between figures in MLflow and the progress table", ge=1)
    resources: ResourcesConfig = runtime(ResourcesConfig(), "workers and what they get")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.resources.workers:
            raise ValueError(
                f"batch_size={self.batch_size} does not divide among resources.workers={self.resources.workers}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """As for every section; with dropout, also what decides which texts share a mask."""
        found = super().identity()
        if self.dropout != 0:
            found |= {"workers": self.resources.workers, "micro_batch_tokens": self.micro_batch_tokens}
        return found
