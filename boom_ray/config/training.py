"""How a member is trained, and on what."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from boom_ray.config.section import KeyedError, Section, runtime

ELASTIC_DROPOUT = "with dropout a member depends on the number of workers, so resources.workers must be one number"
Momentum = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
LATER = ("warmup_updates", "average_last", "branches")
"""Fields that came after members had been trained without them: in keys only where they are set."""


class ResourcesConfig(Section):
    """Where members are trained; nothing here changes what they learn beyond rounding."""

    workers: Count | tuple[Count, Count] = runtime(
        1, "Ray Train workers per member; [least, most]: as many as there is room for, also after one is lost"
    )
    cpus_per_worker: float = runtime(1, "CPU cores of a worker, and threads of its arithmetic", gt=0)
    gpus_per_worker: float = runtime(0, "GPUs of a worker: 0, 1, or a share of one if workers is 1", ge=0)
    memory_gb_per_worker: float | None = runtime(
        None,
        "memory of a worker, to limit how many members run at once and what a step keeps; GiB; null: its share by CPUs",
        gt=0,
    )
    accelerator_type: str | None = runtime(None, "Ray accelerator type, e.g. H100")
    max_parallel_members: int | None = runtime(None, "most members at once; null: as many as fit", ge=1)
    max_failures: int = runtime(2, "restarts of a member from its last checkpoint", ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ValueError(f"workers must be [least, most] with least <= most; got {list(self.workers)}")
        if self.gpus_per_worker > 1:
            raise ValueError(f"gpus_per_worker={self.gpus_per_worker:g}: a worker computes on one GPU; set workers")
        if 0 < self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError(
                f"gpus_per_worker={self.gpus_per_worker:g} with several workers: workers of one member cannot share a "
                f"GPU; set workers: 1 or gpus_per_worker: 1"
            )
        return self

    @property
    def least_workers(self) -> int:
        """The smallest number of workers that a member trains with."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The largest."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class MatryoshkaConfig(Section):
    """Embeddings whose first coordinates are embeddings of their own (Kusupati et al. 2022, arXiv 2205.13147)."""

    dimensions: tuple[Count, ...] = Field(min_length=1, description="widths the loss is taken at, e.g. [384, 128, 64]")
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="weight of each width; empty: all 1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.dimensions) != sorted(set(self.dimensions), reverse=True):
            raise ValueError(f"matryoshka.dimensions must fall from the widest on; got {list(self.dimensions)}")
        if self.weights and len(self.weights) != len(self.dimensions):
            raise ValueError(
                f"matryoshka.weights has {len(self.weights)} numbers for {len(self.dimensions)} dimensions"
            )
        return self


class ProgressScoresConfig(Section):
    """Scores of a member while it trains, measured elsewhere; training never waits for them."""

    every: int = runtime(500, "steps between evaluations", ge=1)
    tasks: tuple[str, ...] = runtime(
        (), "names of evaluation tasks; empty: those of evaluation.selection, else of evaluation.in_domain"
    )
    cpus: float = runtime(1, "CPU cores of an evaluation", gt=0)
    gpus: float = runtime(0, "GPUs of an evaluation", ge=0)


class AverageLastConfig(Section):
    """The member is the mean of its own last weights (Izmailov et al. 2018, arXiv 1803.05407)."""

    snapshots: int = Field(8, ge=2, description="weights that are averaged, the last ones being those at the end")
    share: float = Field(
        0.1, gt=0, le=1, description="share of the updates, at the end, over which they are evenly spread"
    )


class TrainingConfig(Section):
    """How every member is trained."""

    epochs: int | float = Field(
        1, gt=0, description="passes over the bag; with a fraction, the last one takes that share of a dataset's steps"
    )
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps; null: the whole plan")
    batch_size: int = Field(256, ge=2, description="queries per step over all workers; examples")
    accumulation: int = Field(
        1, ge=1, description="steps whose gradients are averaged for one update; negatives come from one step alone"
    )
    negatives: int = Field(7, ge=0, description="hard negatives per query; texts")
    temperature: float = Field(
        0.02, gt=0, description="InfoNCE's temperature where a dataset's loss has none of its own"
    )
    matryoshka: MatryoshkaConfig | None = Field(None, description="also train the first coordinates on their own")

    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of AdamW")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="each block's rate is this times that of the block above it; 1: one rate"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay; biases and norms have none")
    no_decay: tuple[str, ...] = Field((), description="patterns of names of other parameters without weight decay")
    betas: tuple[Momentum, Momentum] = Field((0.9, 0.999), description="AdamW's momentum factors")
    eps: float = Field(1e-8, gt=0, description="AdamW's term that keeps divisions finite")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the updates in which the rate rises from 0")
    warmup_updates: int | None = Field(
        None, ge=0, description="updates in which the rate rises from 0, whatever the length; null: see warmup_ratio"
    )
    decay: Literal["linear", "cosine", "constant", "wsd"] = Field(
        "linear", description="how the rate falls after that; wsd: stays, then falls in the last decay_ratio"
    )
    decay_ratio: float = Field(0.1, gt=0, le=1, description="share of the updates in which wsd falls")
    final_ratio: float = Field(0.0, ge=0, le=1, description="rate at the end as a share of learning_rate")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this L2 norm")
    ema: float | None = Field(
        None, gt=0, lt=1, description="the member is the moving average of the weights, this being the old one's share"
    )
    average_last: AverageLastConfig | None = Field(
        None, description="the member is the mean of its weights at some of the last updates"
    )
    branches: bool = Field(
        False, description="members are branches of one run: its first steps, then a fall of the rate of their own"
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="type of forward and backward pass; weights, their sums of gradients and AdamW: float32"
    )
    dropout: float | None = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout probability everywhere; null: as the base says; without it the number of workers is free",
    )
    on_bad_step: Literal["stop", "skip"] = Field(
        "stop",
        description="what a step does whose loss or gradient is not finite, or whose loss leaps: stop or no update",
    )
    max_leap: float | None = Field(
        None, gt=1, description="a loss this many times its dataset's moving average is a bad step; null: never"
    )

    parallelism: Literal["ddp", "fsdp"] = runtime(
        "ddp", "ddp: every worker holds the model; fsdp: each holds a share of weights, gradients and moments (FSDP2)"
    )
    micro_batch_tokens: int | None = runtime(
        None,
        "most tokens of one forward pass; null: 2048 on CPUs, 65536 or what fits on GPUs, with dropout 8192 there",
        ge=64,
    )
    kept_tokens: int | None = runtime(
        None,
        "most tokens whose activations a step keeps, the rest is computed twice (GradCache); null: as memory allows",
        ge=0,
    )
    attention: Literal["auto", "padded", "plain"] = runtime(
        "auto", "auto: without padding on GPUs where the model allows; padded: never; plain: transformers' own"
    )
    compile: bool | None = runtime(None, "torch.compile for the model's blocks; null: on GPUs")
    read_ahead: int = runtime(4, "steps that are read and cut before they are needed", ge=1)
    checkpoint_every: int | None = runtime(200, "steps between checkpoints; null: none by steps", ge=1)
    checkpoint_minutes: float | None = runtime(
        None, "minutes between checkpoints, looked at every log_every steps", gt=0
    )
    keep_checkpoints: int = runtime(2, "checkpoints kept per member", ge=1)
    log_every: int = runtime(10, "steps between figures in MLflow and the progress table", ge=1)
    scores: ProgressScoresConfig | None = runtime(None, "evaluate while training, on other resources")
    resources: ResourcesConfig = runtime(ResourcesConfig(), "workers and what they get")

    @field_validator("epochs")
    @classmethod
    def _whole_numbers_are_integers(cls, value: int | float) -> int | float:
        """So that 2 and 2.0 are one member."""
        return int(value) if value == int(value) else value

    @model_validator(mode="after")
    def _workers_have_work(self) -> Self:
        most = self.resources.most_workers
        if self.batch_size < most:
            raise ValueError(f"batch_size={self.batch_size} gives no query to some of resources.workers={most}")
        is_elastic = not isinstance(self.resources.workers, int)
        if self.dropout != 0 and is_elastic:
            raise ValueError(ELASTIC_DROPOUT)
        if self.parallelism == "fsdp" and self.resources.least_workers == 1:
            raise ValueError("parallelism=fsdp needs two workers at least: set resources.workers")
        return self

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.ema is not None and self.average_last is not None:
            raise KeyedError("average_last", "a member is one average: set either ema or average_last")
        return self

    @model_validator(mode="after")
    def _branches_share_a_trunk(self) -> Self:
        if self.branches and self.decay != "wsd":
            raise KeyedError("decay", f"must be wsd with branches, whose trunk has one rate (got {self.decay})")
        if self.branches and self.warmup_updates is None:
            raise KeyedError("warmup_updates", "must be set with branches: they share one warm-up")
        return self

    def identity(self) -> dict[str, Any]:
        """As for every section; with dropout, also what decides which texts share a mask."""
        found = super().identity() | (self.masks() if self.dropout != 0 else {})
        for name in LATER:
            if getattr(self, name) == type(self).model_fields[name].default:
                del found[name]
        if self.warmup_updates is not None:
            del found["warmup_ratio"]  # which has no effect then
        return found

    def masks(self) -> dict[str, Any]:
        """What decides which texts share a mask of dropout."""
        return {
            "workers": self.resources.workers,
            "micro_batch_tokens": self.micro_batch_tokens,
            "on_gpu": self.resources.gpus_per_worker > 0,
            "attention": self.attention,
        }
