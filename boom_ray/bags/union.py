"""Bags over corpora that came one after the other: a share of each, and the union of shares as one plan.

An update trains on the core of everything old and on all that is new. What is new is what no older corpus holds: an
example that an older one has, under whatever dataset's name, is left out of the new share and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import ray
import xxhash

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.artifacts.plan import BAG, I64
from boom_ray.artifacts.tokens import open_corpus
from boom_ray.bags.sampling import BagRule, draw_rows, pool_rows, quotas
from boom_ray.bags.schedules import batch_level_shuffling
from boom_ray.bags.stage import fingerprint, left_over, load_rows
from boom_ray.config import MixtureConfig
from boom_ray.errors import DataError
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import U64
from boom_ray.runtime import cause
from boom_ray.store import Artifact, Draft, Store, artifact_key

SHARE = "share"
VERSION = 1


@dataclass(frozen=True)
class Holding:
    """Where the examples of a corpus are.

    Attributes:
        corpus: fingerprint of the corpus.
        parts: dataset to the keys of its parts.
    """

    corpus: str
    parts: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, corpus: Artifact) -> Holding:
        """All of a corpus."""
        return cls(corpus.fingerprint, corpus.figures["parts"])

    def ids(self, store: Store) -> dict[str, U64]:
        """Dataset to (n,) ids of its examples, ascending."""
        parts = {name: list(keys) for name, keys in self.parts.items()}
        return {name: dataset.ids for name, dataset in open_corpus(store, parts).items()}


@dataclass(frozen=True)
class ShareJob:
    """A share of a corpus, without an order.

    Attributes:
        name: for messages; in no key.
        rule: which examples of those that no older corpus holds.
        held: the corpus.
        older: corpora whose examples do not count here.
        mixture: temperature, caps and max_examples, see `boom_ray.bags.sampling.quotas`; by default all examples.
        pool_seed: seed of the choice of examples under caps.
    """

    name: str
    rule: BagRule
    held: Holding
    older: tuple[Holding, ...] = ()
    mixture: dict[str, Any] = field(default_factory=lambda: MixtureConfig().identity())
    pool_seed: int = 0

    kind: ClassVar[str] = SHARE

    def spec(self) -> dict[str, Any]:
        """The fields that determine which examples it holds."""
        return {"rule": self.rule.identity(), "mixture": self.mixture, "pool_seed": self.pool_seed}

    def inputs(self) -> dict[str, Any]:
        """What it is drawn from."""
        return {"corpus": self.held.corpus, "older": sorted(one.corpus for one in self.older)}

    @property
    def key(self) -> str:
        """Key of the artifact."""
        return artifact_key(self.kind, self.spec(), self.inputs(), VERSION)


@dataclass(frozen=True)
class UnionJob:
    """Shares and bags of different datasets together under batch-level shuffling: a bag that a member is trained on.

    Attributes:
        name: for messages; in no key.
        bags: what it holds: artifacts of kinds ``share`` and ``bag``, of which only the rows count; by name.
        held: a corpus that has all their datasets.
        order_seed: seed of the order of steps.
        batch_size: queries per step.
        epochs: passes over the bag.
    """

    name: str
    bags: Mapping[str, Artifact]
    held: Holding
    order_seed: int
    batch_size: int
    epochs: float

    kind: ClassVar[str] = BAG

    def spec(self) -> dict[str, Any]:
        """The fields that determine the plan beside the bags."""
        numbers = {"order_seed": self.order_seed, "batch_size": self.batch_size, "epochs": self.epochs}
        return {"schedule": "batch-level-shuffling", **numbers}

    def inputs(self) -> dict[str, Any]:
        """The corpus and the bags."""
        return {"corpus": self.held.corpus, "bags": sorted(f"{bag.kind}/{bag.key}" for bag in self.bags.values())}

    @property
    def key(self) -> str:
        """Key of the artifact."""
        return artifact_key(self.kind, self.spec(), self.inputs(), VERSION)


Job = TypeVar("Job", ShareJob, UnionJob)


def make_shares(store: Store, jobs: Sequence[ShareJob], report: Report = silent) -> list[Artifact]:
    """Draw shares, one Ray task each.

    Returns:
        Artifacts with files ``rows-<number of dataset>.npy`` (see `boom_ray.bags.stage.load_rows`) and figures
        ``datasets``, ``examples`` of each, and ``repeated``, of each the examples left out because an older corpus
        holds them.
    """
    return _made(store, jobs, _draw, report)


def make_unions(store: Store, jobs: Sequence[UnionJob], report: Report = silent) -> list[Artifact]:
    """Plan the steps of unions, one Ray task each.

    Returns:
        Artifacts of kind ``bag``, as of `boom_ray.bags.stage.make_bags`.

    Raises:
        DataError: a union gives no step, because every dataset is smaller than a batch.
    """
    return _made(store, jobs, _plan, report)


def _made(store: Store, jobs: Sequence[Job], make: Callable[[Store, Job], Artifact], report: Report) -> list[Artifact]:
    remote = ray.remote(num_cpus=1)(make)
    pending = [store.get(job.kind, job.key) or remote.remote(store, job) for job in jobs]
    made = []
    for job, found in zip(jobs, pending, strict=True):
        try:
            artifact = found if isinstance(found, Artifact) else ray.get(found)
        except ray.exceptions.RayError as error:
            raise cause(error) from error
        count = sum(artifact.figures["examples"].values())
        report(Event("bags", job.name, count, count, {}, "stored" if found is artifact else ""))
        made.append(artifact)
    return made


def _draw(store: Store, job: ShareJob) -> Artifact:
    def build(draft: Draft) -> None:
        ids = job.held.ids(store)
        known = [values for older in job.older for values in older.ids(store).values()]
        rows, repeated = share_rows(ids, np.concatenate(known) if known else np.empty(0, np.uint64), job)
        state = xxhash.xxh3_128()
        for index, name in enumerate(sorted(rows)):
            np.save(draft.path / f"rows-{index}.npy", rows[name], allow_pickle=False)
            state.update(name.encode())
            state.update(ids[name][rows[name]].tobytes())
        draft.figures |= {
            "datasets": sorted(rows),
            "examples": {name: len(chosen) for name, chosen in rows.items()},
            "repeated": repeated,
        }
        draft.fingerprint = state.hexdigest()

    return store.materialize(job.kind, job.spec(), job.inputs(), build, VERSION)


def share_rows(ids: Mapping[str, U64], known: U64, job: ShareJob) -> tuple[dict[str, I64], dict[str, int]]:
    """Which rows a share holds.

    Args:
        ids: dataset to (n,) ids of its examples.
        known: (k,) ids of the examples of all older corpora.
        job: the share.

    Returns:
        Dataset to ascending rows, and to the number of examples in its quota that are left out as known.
    """
    rows, repeated = {}, {}
    quota = quotas({name: len(values) for name, values in ids.items()}, **job.mixture)
    for name, values in ids.items():
        pool = pool_rows(values, quota[name], job.pool_seed, name)
        fresh = pool[~np.isin(values[pool], known)]
        rows[name] = draw_rows(values, fresh, job.rule, name)
        repeated[name] = len(pool) - len(fresh)
    return rows, repeated


def _plan(store: Store, job: UnionJob) -> Artifact:
    def build(draft: Draft) -> None:
        rows = {name: chosen for bag in job.bags.values() for name, chosen in load_rows(bag).items()}
        sizes = {name: len(chosen) for name, chosen in rows.items()}
        ids = {name: values for name, values in job.held.ids(store).items() if name in rows}
        plan = batch_level_shuffling(rows, ids, job.batch_size, job.epochs, job.order_seed)
        if not len(plan):
            raise DataError(
                f"The bag of {job.name} gives no step: no dataset has training.batch_size={job.batch_size} examples "
                f"in it ({', '.join(f'{name} {size}' for name, size in sizes.items())}). Lower the batch size."
            )
        plan.save(draft.path)
        for index, name in enumerate(plan.datasets):
            np.save(draft.path / f"rows-{index}.npy", rows[name], allow_pickle=False)
        draft.figures |= {
            "steps": len(plan),
            "examples": sizes,
            "datasets": list(plan.datasets),
            "left_over": left_over(plan, sizes),
        }
        draft.fingerprint = fingerprint(plan, ids)

    return store.materialize(job.kind, job.spec(), job.inputs(), build, VERSION)
