"""The sample of training data that members are looked at with: which examples, in which steps, under which loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boom_ray.artifacts.batches import Batch, BatchReader
from boom_ray.artifacts.plan import I64, Step
from boom_ray.artifacts.tokens import TokenDataset, open_corpus
from boom_ray.config import LossConfig, TrainingConfig
from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.hashing import U64, mix64, stream_key
from boom_ray.model.encoder import Encoder
from boom_ray.model.losses.policy import Facts, Matryoshka, Policy, resolve_policy, step_loss
from boom_ray.model.steps import StepSettings, backward, embed, prepare
from boom_ray.store import Artifact, Store

MICRO_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class LossSettings:
    """How members were trained, as far as all datasets share it.

    Attributes:
        temperature: InfoNCE's temperature where a dataset has none of its own.
        negatives: most hard negatives per query; texts.
        precision: type of the forward pass, ``bfloat16`` or ``float32``.
        micro_batch_tokens: most tokens of one forward pass; changes nothing beyond rounding and is in no key.
        matryoshka: widths at which the loss was taken, if members can be cut.
    """

    temperature: float
    negatives: int
    precision: str = "float32"
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    matryoshka: Matryoshka | None = None

    @staticmethod
    def of(training: TrainingConfig) -> LossSettings:
        """The loss of a training configuration."""
        tokens = training.micro_batch_tokens or MICRO_BATCH_TOKENS
        widths = Matryoshka.of(training.matryoshka)
        return LossSettings(training.temperature, training.negatives, training.precision, tokens, widths)

    def identity(self) -> dict[str, Any]:
        """The fields that determine the loss, as JSON."""
        kept = {"temperature": self.temperature, "negatives": self.negatives, "precision": self.precision}
        return kept | ({} if self.matryoshka is None else {"matryoshka": asdict(self.matryoshka)})


@dataclass(frozen=True)
class StepLoss:
    """The loss of a step of any dataset, with members as models that run in float32.

    Attributes:
        settings: what all datasets share.
        policies: dataset to its loss.
    """

    settings: LossSettings
    policies: Mapping[str, Policy]

    def backward(self, encoder: Encoder, batch: Batch) -> float:
        """Add the step's gradients to the parameters' ``grad``; returns its loss."""
        settings, policy = self.step_settings(encoder), self.policies[batch.dataset]
        return float(backward(encoder, prepare(batch, settings), policy, settings, self.settings.matryoshka))

    def value(self, encoder: Encoder, batch: Batch) -> float:
        """The step's loss."""
        vectors = embed(encoder, batch.texts, self.step_settings(encoder))[batch.index.to(encoder.device)]
        facts, policy = Facts.of(batch).to(encoder.device), self.policies[batch.dataset]
        return float(step_loss(vectors, facts, policy, self.settings.matryoshka))

    def step_settings(self, encoder: Encoder) -> StepSettings:
        """How a step is computed."""
        return StepSettings(
            pad_id=encoder.pad_id,
            micro_batch_tokens=self.settings.micro_batch_tokens,
            autocast=self.settings.precision == "bfloat16",
        )


@dataclass(frozen=True)
class Sample:
    """Steps of examples, each of one dataset.

    Attributes:
        steps: which rows of which dataset.
        reader: reads a step's texts.
    """

    steps: tuple[Step, ...]
    reader: BatchReader

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def examples(self) -> dict[str, int]:
        """Dataset to its number of examples."""
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.dataset] = counts.get(step.dataset, 0) + len(step.rows)
        return dict(sorted(counts.items()))

    def batch(self, index: int) -> Batch:
        """Step ``index`` with its texts; the same on every machine."""
        return self.reader.read(self.steps[index])


@dataclass(frozen=True)
class SampleJob:
    """Everything that determines a sample, and where its corpus is.

    Attributes:
        corpus: fingerprint of the corpus.
        parts: dataset to the keys of its parts.
        losses: dataset to its loss and negatives policy, as the corpus artifact has them.
        probe: how many examples, which, and how many per step.
    """

    corpus: str
    parts: dict[str, list[str]]
    losses: dict[str, dict[str, Any]]
    probe: ProbeConfig

    @staticmethod
    def of(corpus: Artifact, probe: ProbeConfig) -> SampleJob:
        """The sample of a corpus artifact (`boom_ray.corpus.ingest`)."""
        tables = corpus.figures["datasets"].items()
        losses = {name: {"in_batch": bool(facts["in_batch"]), "loss": facts["loss"]} for name, facts in tables}
        return SampleJob(corpus.fingerprint, corpus.figures["parts"], losses, probe)

    def spec(self) -> dict[str, Any]:
        """The fields that determine the sample beside the corpus, as JSON."""
        kept = {name: getattr(self.probe, name) for name in ("examples", "batch", "seed")}
        return {**kept, "losses": dict(sorted(self.losses.items()))}

    def step_loss(self, settings: LossSettings) -> StepLoss:
        """The loss of the corpus's datasets."""
        return StepLoss(
            settings,
            {
                name: resolve_policy(LossConfig(**facts["loss"]), facts["in_batch"], settings.temperature)
                for name, facts in self.losses.items()
            },
        )

    def open(self, store: Store, negatives: int) -> Sample:
        """The sample, ready to be read.

        Args:
            store: where the corpus is.
            negatives: most hard negatives per query.

        Raises:
            MergeError: the corpus has no examples.
            StoreError: a part of it is missing.
        """
        corpus = open_corpus(store, self.parts)
        steps = draw(corpus, self.probe.examples, self.probe.batch, self.probe.seed)
        return Sample(steps, BatchReader(corpus, negatives, self.probe.seed, rank=0, workers=1))


def draw(corpus: Mapping[str, TokenDataset], examples: int, batch: int, seed: int) -> tuple[Step, ...]:
    """Spread examples evenly over the datasets and cut them into steps.

    Every dataset gives the same number; those that have fewer give all they have, and the others fill up. An example is
    chosen by a keyed hash of its id, so a larger sample holds the smaller one of the same seed as long as the datasets
    suffice. A dataset's steps are of equal size, give or take one, and at most ``batch``; all steps are shuffled by
    keyed hash.

    Raises:
        MergeError: the corpus has no examples.
    """
    quotas = spread({name: len(dataset) for name, dataset in corpus.items()}, examples)
    if not sum(quotas.values()):
        raise MergeError("The corpus has no examples to look at members with; merge.probe needs some.")
    steps: list[tuple[int, Step]] = []
    for name, quota in quotas.items():
        rows = _first_rows(corpus[name].ids, stream_key("probe", seed, name), quota)
        pieces = np.array_split(rows, -(-quota // batch)) if quota else []
        steps += [(stream_key("probe", seed, name, place), Step(name, 0, piece)) for place, piece in enumerate(pieces)]
    return tuple(step for _, step in sorted(steps, key=lambda pair: (pair[0], pair[1].dataset)))


def spread(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many examples every dataset gives: equal numbers, limited by its size; what is left over goes by name."""
    quotas: dict[str, int] = {}
    left = min(total, sum(sizes.values()))
    waiting = sorted(sizes, key=lambda name: (sizes[name], name))
    for place, name in enumerate(waiting):
        quotas[name] = min(sizes[name], -(-left // (len(waiting) - place)) if sizes[name] else 0)
        left -= quotas[name]
    return dict(sorted(quotas.items()))


def _first_rows(ids: U64, key: int, count: int) -> I64:
    """The rows of the ``count`` smallest keyed hashes, in their order."""
    order: I64 = np.argsort(mix64(ids, key), kind="stable")[:count]
    return order
