"""The bags stage: rules to stored plans, one Ray task per bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import ray
import xxhash

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.artifacts.plan import BAG, I64, Plan
from boom_ray.artifacts.tokens import open_corpus
from boom_ray.bags.overlap import Overlap, overlap
from boom_ray.bags.sampling import BagRule, draw_rows, pool_rows, quotas
from boom_ray.bags.schedules import Schedule
from boom_ray.config import BagConfig, BagsConfig
from boom_ray.errors import ConfigError, DataError
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import U64, canonical_json
from boom_ray.runtime import cause
from boom_ray.store import Artifact, Draft, Store, artifact_key

VERSION = 1
CORE = "core"


@dataclass(frozen=True)
class BagJob:
    """Everything that determines one bag, and where its corpus is.

    Attributes:
        name: for messages; in no key.
        rule: which examples.
        order_seed: seed of the order of steps.
        batch_size: queries per step.
        epochs: passes over the bag, see `boom_ray.bags.schedules.batches.passes`.
        mixture: temperature, caps and max_examples of the run.
        pool_seed: seed of the choice of examples under caps, the same for all bags of a run.
        corpus: fingerprint of the corpus.
        parts: dataset to the keys of its parts.
        schedule: how the bag becomes steps.
    """

    name: str
    rule: BagRule
    order_seed: int
    batch_size: int
    epochs: float
    mixture: dict[str, Any]
    pool_seed: int
    corpus: str
    parts: dict[str, list[str]]
    schedule: Schedule = field(default_factory=Schedule)

    def spec(self) -> dict[str, Any]:
        """The fields that determine the bag's content."""
        return {
            "rule": self.rule.identity(),
            "order_seed": self.order_seed,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "mixture": self.mixture,
            "pool_seed": self.pool_seed,
            "schedule": self.schedule.identity(),
        }

    def inputs(self) -> dict[str, Any]:
        """What the bag is drawn from."""
        return {"corpus": self.corpus}

    @property
    def key(self) -> str:
        """Key of the bag's artifact."""
        return artifact_key(BAG, self.spec(), self.inputs(), VERSION)


def rule_of(bag: BagConfig, bags: BagsConfig, seed: int) -> BagRule:
    """A bag's rule with every default resolved; a complement takes over the rule of the bag it completes."""
    source = bag
    if bag.complement_of is not None:
        source = next(other for other in bags.resolved() if other.name == bag.complement_of)
    if source.ratio is None:
        raise ConfigError(f"Bag {bag.name} has no ratio.")
    return BagRule(
        ratio=source.ratio,
        seed=seed if source.seed is None else source.seed,
        draw=source.draw,
        replacement=source.replacement,
        nested=bags.nested,
        complement=bag.complement_of is not None,
        datasets=tuple(sorted(source.datasets)),
    )


def core_rule(bags: BagsConfig, seed: int) -> BagRule:
    """The rule of the core that updates replay (PAPER.md section 3): drawn once, independent of all members' bags."""
    return BagRule(ratio=bags.core_ratio, seed=seed, draw=-1)


def make_bags(store: Store, jobs: list[BagJob], report: Report = silent) -> dict[str, Artifact]:
    """Draw bags and plan their steps.

    Args:
        store: where the corpus is and the bags go.
        jobs: the bags, named uniquely.
        report: told of each finished bag.

    Returns:
        name to artifact: files ``plan-*.npy`` and ``rows-<number of dataset>.npy``; figures ``datasets`` (those it
        draws from), ``examples`` of each (with repeats), ``steps``, ``left_over`` (of each, the examples that the first
        pass over it does not use; in batch-level shuffling those of the incomplete batch) and perhaps ``stages``.

    Raises:
        DataError: a bag gives no step, because there are fewer examples than a batch.
    """
    found = {job.name: store.get(BAG, job.key) for job in jobs}
    todo = [job for job in jobs if found[job.name] is None]
    if todo:
        draw = ray.remote(num_cpus=1)(_draw)
        pending = {job.name: draw.remote(store, job) for job in todo}
        for name, reference in pending.items():
            try:
                found[name] = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise cause(error) from error
    bags = {name: artifact for name, artifact in found.items() if artifact is not None}
    fresh = {job.name for job in todo}
    for name, bag in bags.items():
        steps = bag.figures["steps"]
        report(Event("bags", name, steps, steps, {}, "" if name in fresh else "stored"))
    return bags


def load_rows(bag: Artifact) -> dict[str, I64]:
    """Dataset to the rows that a stored bag holds, repeats included, memory-mapped."""
    folder = bag.local()
    return {
        name: np.load(folder / f"rows-{index}.npy", mmap_mode="r", allow_pickle=False)
        for index, name in enumerate(sorted(bag.figures["datasets"]))
    }


def compare(bags: Mapping[str, Artifact], sizes: Mapping[str, int]) -> Overlap:
    """Sizes, overlaps and common coverage of stored bags."""
    return overlap({name: load_rows(bag) for name, bag in bags.items()}, sizes)


def _draw(store: Store, job: BagJob) -> Artifact:
    def build(draft: Draft) -> None:
        corpus = {name: dataset.ids for name, dataset in open_corpus(store, job.parts).items()}
        rows = bag_rows(corpus, job)
        plan = job.schedule.plan(rows, corpus, job.batch_size, job.epochs, job.order_seed)
        if not len(plan):
            raise DataError(_no_step(job, {name: len(chosen) for name, chosen in rows.items()}))
        plan.save(draft.path)
        for index, name in enumerate(plan.datasets):
            np.save(draft.path / f"rows-{index}.npy", rows[name], allow_pickle=False)
        draft.figures |= {
            "steps": len(plan),
            "examples": {name: len(chosen) for name, chosen in rows.items()},
            "datasets": list(plan.datasets),
            "left_over": left_over(plan, {name: len(chosen) for name, chosen in rows.items()}),
        }
        if plan.stages:
            draft.figures["stages"] = [asdict(stage) for stage in plan.stages]
        draft.fingerprint = fingerprint(plan, corpus)

    return store.materialize(BAG, job.spec(), job.inputs(), build, VERSION)


def _no_step(job: BagJob, sizes: Mapping[str, int]) -> str:
    what = {"example-mixing": "all datasets together have not", "two-stage": "no dataset of a stage has"}
    found = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return (
        f"Bag {job.name} gives no step: {what.get(job.schedule.kind, 'no dataset has')} "
        f"training.batch_size={job.batch_size} examples in it ({found}). Lower the batch size or raise the ratio."
    )


def bag_rows(ids: Mapping[str, U64], job: BagJob) -> dict[str, I64]:
    """Dataset to ascending rows of the bag, of those datasets that it draws from."""
    share = quotas({name: len(values) for name, values in ids.items()}, **job.mixture)
    return {
        name: draw_rows(values, pool_rows(values, share[name], job.pool_seed, name), job.rule, name)
        for name, values in ids.items()
        if job.rule.draws_from(name)
    }


def left_over(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """Dataset to its examples that the first pass over it does not use; all of them if no step is of it."""
    lengths = np.diff(plan.offsets)
    found = dict(sizes)
    for index, name in enumerate(plan.datasets):
        own = plan.dataset == index
        if own.any():
            found[name] -= int(lengths[own & (plan.epoch == plan.epoch[own].min())].sum())
    return found


def fingerprint(plan: Plan, ids: Mapping[str, U64]) -> str:
    """Hash of which examples come in which order, and in which stages."""
    state = xxhash.xxh3_128()
    for index, name in enumerate(plan.datasets):
        state.update(name.encode())
        state.update(ids[name].tobytes())
        state.update(np.int64(index).tobytes())
    for array in plan.arrays().values():
        state.update(array.tobytes())
    if plan.stages:
        state.update(canonical_json([asdict(stage) for stage in plan.stages]).encode())
    return state.hexdigest()
