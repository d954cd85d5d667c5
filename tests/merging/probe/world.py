"""A store with a small corpus and tiny members, for tests of what looks at members with data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from boom_ray.config import LossConfig, ModelConfig
from boom_ray.config.merge import ProbeConfig
from boom_ray.merging.probe.members import Source
from boom_ray.merging.probe.sample import LossSettings, SampleJob, StepLoss
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Artifact, Store
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_corpus

LOSS = LossSettings(temperature=0.2, negatives=2)
MODEL = ModelConfig(pooling="mean")


@dataclass(frozen=True)
class World:
    """Where things are."""

    store: Store
    corpus: Artifact
    folder: Path

    def ref(self, name: str) -> MemberRef:
        """A member by the name of its folder."""
        path = self.folder / name
        return MemberRef(name, str(path), weights_fingerprint(path), 1)

    def source(self, name: str) -> Source:
        """A member to be run."""
        return Source(self.ref(name), None, MODEL)

    @property
    def loss(self) -> StepLoss:
        """The loss of a step of the corpus."""
        return self.sample().step_loss(LOSS)

    def sample(self, examples: int = 20, batch: int = 4, seed: int = 0, **other: float) -> SampleJob:
        """The sample of the corpus."""
        return SampleJob.of(self.corpus, ProbeConfig(examples=examples, batch=batch, seed=seed, **other))


def make_world(folder: Path) -> World:
    """Two datasets, one of them without in-batch negatives, and members ``a`` and ``b`` with random weights."""
    store = Store(folder / "store")
    sizes = {"long": 30, "short": 6}
    parts = write_corpus(store, sizes)
    tables = {name: {"in_batch": name == "long", "loss": LossConfig().identity()} for name in sizes}

    def build(draft) -> None:
        draft.figures = {"parts": parts, "datasets": copy.deepcopy(tables)}

    corpus = store.materialize("corpus", tables, {}, build)
    with torch.random.fork_rng(devices=[]):
        for seed, name in enumerate(("a", "b")):
            make_tiny_model(folder / name, hidden=16, layers=1, seed=seed)
    return World(store, corpus, folder)
