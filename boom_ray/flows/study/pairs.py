"""Tiny trainings on one dataset or two, and the losses they lead to; in this process, without Ray.

A dataset's examples are divided once: some that losses are measured on, and the rest, of which every training takes the
same batches in the same order, alone or between those of the other dataset. So a difference between joint and separate
training comes from the other dataset only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.plan import I64, Plan, Step
from boom_ray.artifacts.tokens import open_corpus
from boom_ray.bags.schedules.batches import Block, Supply, joined
from boom_ray.bags.stage import load_rows
from boom_ray.config import TrainingConfig
from boom_ray.config.loss import GRADED
from boom_ray.errors import DataError
from boom_ray.hashing import U64, mix64, stream_key
from boom_ray.merging.probe.sample import LossSettings, StepLoss
from boom_ray.model.encoder import Encoder, load_encoder
from boom_ray.store import Store
from boom_ray.training.group import Group
from boom_ray.training.job import MemberJob
from boom_ray.training.loop import Listeners, Loop
from boom_ray.training.loop import Plan as Steps

Division = tuple[I64, I64]
"""Rows that losses are measured on, and rows that are trained on."""


@dataclass(frozen=True)
class PairsJob:
    """Everything that determines the losses.

    Attributes:
        member: a member trained on everything: its bag's examples, base, losses and settings.
        steps: of each training, per dataset.
        examples: of each dataset that losses are measured on.
    """

    member: MemberJob
    steps: int
    examples: int

    def spec(self) -> dict[str, Any]:
        """The fields that determine the losses beside the bag and the base, as JSON."""
        return {**self.member.spec(), "steps": self.steps, "examples": self.examples}


def divide(ids: U64, rows: I64, examples: int, batch: int, key: int) -> Division:
    """Divide a dataset's examples by keyed hash.

    Args:
        ids: (n,) of all examples.
        rows: (k,) distinct rows of those that may be used.
        examples: how many losses are measured on; at most a quarter, but at least two.
        batch: how many a training needs; if fewer would be left, it takes them all, also those of the measurement.
        key: of the hash.
    """
    ordered = rows[np.argsort(mix64(ids[rows], key), kind="stable")]
    count = max(2, min(examples, len(rows) // 4))
    rest = ordered[count:]
    return ordered[:count], np.sort(rest if len(rest) >= batch else rows)


def shortened(training: TrainingConfig) -> TrainingConfig:
    """A member's settings for few steps on one worker: no averages, which would be of the beginning, and no files."""
    unused = {"max_steps": None, "ema": None, "average_last": None, "branches": False, "scores": None}
    files = {"checkpoint_every": None, "checkpoint_minutes": None}
    resources = training.resources.model_copy(update={"workers": 1})
    own = {"warmup_updates": None, "parallelism": "ddp", "resources": resources}
    return training.model_copy(update={**unused, **files, **own})


class Bench:
    """Trains and measures, one training after another, each from the base.

    Args:
        store: where the base and the corpus are.
        job: what is measured.
        gpu: compute on the GPU.

    Raises:
        DataError: a dataset has fewer examples than a batch.
    """

    def __init__(self, store: Store, job: PairsJob, gpu: bool = False) -> None:
        """Load the base once for measuring, and map the corpus."""
        self.member, self.steps = job.member, job.steps
        self.training = shortened(job.member.training)
        self.device = torch.device("cuda" if gpu else "cpu")
        self.place = store.resolve(job.member.base_place)
        self.corpus = open_corpus(store, job.member.parts)
        graded = frozenset(name for name, policy in job.member.policies.items() if policy.kind in GRADED)
        self.reader = BatchReader(self.corpus, self.training.negatives, job.member.seed, 0, 1, graded)
        settings = replace(LossSettings.of(self.training), precision="float32")
        self.loss = StepLoss(settings, job.member.policies)
        self.measured = self._load(0.0)
        self.divisions = _divisions(store, job, {name: data.ids for name, data in self.corpus.items()})

    def losses(self, datasets: Sequence[str]) -> dict[str, float]:
        """Train on some datasets from the base; dataset to the loss on its own examples then, in nats per example.

        Raises:
            TrainingError: the loss is not finite.
        """
        encoder = self._load(self.training.dropout)
        plan = self._plan(datasets)
        steps = Steps(
            len(plan), lambda step: self.reader.read(plan.step(step)), self.member.policies, self.member.longest
        )
        loop = Loop(encoder, steps, self.training, self.member.seed, Group(0, 1))
        loop.run(Listeners(_ignore, _ignore))
        weights = loop.left()
        with torch.no_grad():
            for name, parameter in self.measured.trainable().items():
                parameter.copy_(weights[name])
        return {name: self._measure(name) for name in datasets}

    def _load(self, dropout: float | None) -> Encoder:
        model = self.member.model.model_copy(update={"dense": ()})  # the base's artifact has them already
        encoder = load_encoder(self.place, model, dropout, self.member.seed)
        encoder.to(self.device)
        return encoder

    def _plan(self, datasets: Sequence[str]) -> Plan:
        """So many steps of each dataset, shuffled; a dataset's own steps do not depend on the other."""
        rows = {name: self.divisions[name][1] for name in datasets}
        ids = {name: self.corpus[name].ids for name in datasets}
        supply = Supply(rows, ids, self.training.batch_size, self.member.seed)
        return joined(supply, [[_block(supply, name, self.steps) for name in supply.names]])

    def _measure(self, name: str) -> float:
        sample = self.divisions[name][0]
        pieces = np.array_split(sample, -(-len(sample) // self.training.batch_size))
        self.measured.eval()
        total = 0.0
        for piece in pieces:
            total += self.loss.value(self.measured, self.reader.read(Step(name, 0, piece))) * len(piece)
        return total / len(sample)


def _divisions(store: Store, job: PairsJob, ids: Mapping[str, U64]) -> dict[str, Division]:
    bag = store.get("bag", job.member.bag_key)
    assert bag is not None  # it was drawn before
    batch, seed = job.member.training.batch_size, job.member.seed
    found = {}
    for name, rows in load_rows(bag).items():
        if len(rows) < batch:
            raise DataError(
                f"Dataset {name} has {len(rows)} examples, fewer than training.batch_size={batch}, so no step shows "
                f"what it gives others or takes from them. Lower the batch size, or leave the dataset out."
            )
        found[name] = divide(ids[name], np.asarray(rows), job.examples, batch, stream_key("pairs", seed, name))
    return found


def _block(supply: Supply, name: str, steps: int) -> Block:
    """The first batches of the endless passes over a dataset."""
    passes = (np.arange(steps) // supply.count(name)).astype(np.int32)
    batches = np.concatenate([supply.batches(name, number) for number in range(int(passes[-1]) + 1)])[:steps]
    return Block(supply.names.index(name), passes, batches, supply.places(name, 0, steps))


def _ignore(*_: object) -> None:
    """Nobody listens."""
