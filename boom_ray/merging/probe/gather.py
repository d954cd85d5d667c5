"""What data says about a member, gathered once: one Ray Data pass over fixed shards of the sample, kept in the store.

Every shard's sums are written to a file of their own, and the files are added in the order of the shards, in float64.
Shards depend on the sample alone and each is computed on one thread, so the bytes do not depend on how many actors
there are, and a lost actor costs its shard.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from boom_ray.config import ModelConfig
from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.probe.members import Running, Source
from boom_ray.merging.probe.sample import LossSettings, SampleJob, StepLoss
from boom_ray.merging.probe.staging import Staging, open_staging
from boom_ray.merging.probe.sums import ActivationSums, FisherSums, Sums
from boom_ray.merging.recipe import MemberRef
from boom_ray.store import Artifact, Draft, Store, artifact_key

FISHER, ACTIVATIONS = "fisher", "activations"
KINDS: Mapping[str, Callable[[Running, StepLoss], Sums]] = {FISHER: FisherSums, ACTIVATIONS: ActivationSums}
VERSION = 1
"""Raise it when the same spec gives another content."""
WEIGHTS = "weights"
"""Folder of the tensors inside the artifact."""
SHARDS = 8
"""Pieces of the sample; also the most actors that work on one member."""


@dataclass(frozen=True)
class GatherJob:
    """Everything that determines what is gathered about one member, and where its inputs are.

    Attributes:
        kind: ``fisher`` or ``activations``.
        source: the member.
        sample: the sample it is looked at with.
        loss: the training loss.
    """

    kind: str
    source: Source
    sample: SampleJob
    loss: LossSettings

    def spec(self, store: Store) -> dict[str, Any]:
        """The fields that determine the content."""
        loss = self.loss.identity()
        if self.kind == ACTIVATIONS:
            loss = {name: loss[name] for name in ("negatives", "precision")}  # inputs of layers know no loss
        return {"sample": self.sample.spec(), "loss": loss, "model": self.source.identity(store)}

    def inputs(self, store: Store) -> dict[str, Any]:
        """What it is made from."""
        return {"corpus": self.sample.corpus, **self.source.fingerprints(store)}


@dataclass(frozen=True)
class Resources:
    """What one actor gets; nothing here changes the result.

    Attributes:
        gpus: GPUs of an actor, a whole number or a share; on CPUs an actor uses one core.
        actors: most actors; None for as many as fit.
    """

    gpus: float = 0.0
    actors: int | None = None


def gather_fisher(
    store: Store,
    member: MemberRef,
    corpus: Artifact,
    probe: ProbeConfig,
    model: ModelConfig,
    loss: LossSettings,
    report: Report = silent,
    resources: Resources | None = None,
    base: MemberRef | None = None,
) -> Artifact:
    """Diagonal Fisher information of a member on a sample of the corpus; see `FisherSums` for what it is.

    Args:
        store: where corpus and member are and the result goes.
        member: the member.
        corpus: artifact of the corpus stage, tokenised for this model.
        probe: which examples.
        model: pooling, normalisation and gradient checkpointing.
        loss: the loss that the member was trained with.
        report: told of every shard.
        resources: what actors get.
        base: the base, if the member is an adapter over it.

    Returns:
        An artifact of kind ``fisher`` whose folder ``weights`` holds float32 tensors named as the member's, in the same
        folders; tensors that the loss cannot depend on (a head, a pooler) are left out. Figures: ``count`` (examples),
        ``loss`` (mean), ``examples`` (by dataset), ``steps``, ``tensors``, ``seconds``.

    Raises:
        MergeError: the loss is not finite, the corpus is empty, the member's tensors are named in another way.
        ModelError: the member has modules that cannot be run.
        StoreError: the store cannot be read or written.
    """
    source = Source(member, base, model)
    return gather(store, GatherJob(FISHER, source, SampleJob.of(corpus, probe), loss), report, resources)


def gather_activations(
    store: Store,
    member: MemberRef,
    corpus: Artifact,
    probe: ProbeConfig,
    model: ModelConfig,
    loss: LossSettings,
    report: Report = silent,
    resources: Resources | None = None,
    base: MemberRef | None = None,
) -> Artifact:
    """Mean products xxᵀ of the inputs of a member's linear layers; see `gather_fisher` and `ActivationSums`.

    Returns:
        An artifact of kind ``activations`` whose folder ``weights`` holds a (columns, columns) float32 matrix under the
        key of every linear layer's weight. Figures as `gather_fisher`'s, ``count`` in tokens, without ``loss``.

    Raises:
        MergeError: as `gather_fisher`.
        ModelError: as `gather_fisher`.
        StoreError: as `gather_fisher`.
    """
    source = Source(member, base, model)
    return gather(store, GatherJob(ACTIVATIONS, source, SampleJob.of(corpus, probe), loss), report, resources)


def gather(store: Store, job: GatherJob, report: Report = silent, resources: Resources | None = None) -> Artifact:
    """Gather on the cluster; what exists is returned at once. Needs a running Ray only when it does not."""
    from boom_ray.merging.probe.actors import run_shards

    return _gather(store, job, report, lambda staging, shards: run_shards(store, job, staging, shards, resources))


def gather_here(store: Store, job: GatherJob, report: Report = silent) -> Artifact:
    """Gather in this process; the same bytes."""

    def run(staging: Staging, shards: int) -> Iterator[ShardResult]:
        gatherer = Gatherer(store, job, staging, shards)
        return (gatherer.shard(number) for number in range(shards))

    return _gather(store, job, report, run)


@dataclass(frozen=True)
class ShardResult:
    """What one shard gave beside its file: examples or tokens, and the sum of losses."""

    shard: int
    count: int
    loss: float | None


def _gather(
    store: Store, job: GatherJob, report: Report, run: Callable[[Staging, int], Iterable[ShardResult]]
) -> Artifact:
    spec, inputs = job.spec(store), job.inputs(store)
    unit = f"{job.kind} of {job.source.member.name}"
    found = store.get(job.kind, artifact_key(job.kind, spec, inputs, VERSION))
    if found is not None:
        report(Event("merge", unit, 1, 1, note="cached"))
        return found

    def build(draft: Draft) -> None:
        started = time.perf_counter()
        sample = job.sample.open(store, job.loss.negatives)
        shards = min(SHARDS, len(sample))
        report(Event("merge", unit, 0, shards))
        with open_staging(store, draft) as staging:
            results: list[ShardResult] = []
            for result in run(staging, shards):
                results.append(result)
                report(Event("merge", unit, len(results), shards))
            count = sum(result.count for result in results)
            tensors = staging.add(shards, count, draft.path / WEIGHTS)
        draft.figures = {"count": count, "steps": len(sample), "examples": sample.examples, "tensors": tensors}
        losses = [result.loss for result in sorted(results, key=lambda one: one.shard) if result.loss is not None]
        draft.figures |= {"loss": sum(losses) / count} if losses else {}
        draft.figures["seconds"] = round(time.perf_counter() - started, 3)

    return store.materialize(job.kind, spec, inputs, build, VERSION)


class Gatherer:
    """Computes shards of the sample with one loaded member; what a Ray Data actor holds.

    Args:
        store: where everything is.
        job: what is gathered.
        staging: where the sums go.
        shards: number of shards.
        gpu: whether to run on a GPU.
    """

    def __init__(self, store: Store, job: GatherJob, staging: Staging, shards: int, gpu: bool = False) -> None:
        """Load the member and map the corpus."""
        self._job, self._staging, self._shards = job, staging, shards
        self._running = job.source.load(store, torch.device("cuda" if gpu else "cpu"))
        self._sample = job.sample.open(store, job.loss.negatives)

    def shard(self, number: int) -> ShardResult:
        """Add up the steps ``number``, ``number + shards``… and leave the sums in the staging folder.

        Raises:
            MergeError: something is not finite; names the member.
        """
        with one_thread():
            sums = KINDS[self._job.kind](self._running, self._job.sample.step_loss(self._job.loss))
            try:
                sums.add(self._sample.batch(index) for index in range(number, len(self._sample), self._shards))
                _check_finite(sums)
            except MergeError as error:
                raise MergeError(f"{self._job.source.member.name}: {error}") from None
            finally:
                sums.close()
            self._staging.put(number, sums.tensors)
        return ShardResult(number, sums.count, sums.loss)


def _check_finite(sums: Sums) -> None:
    for key, tensor in sums.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise MergeError(
                f"What was gathered for tensor {key} holds NaN or infinity. Leave this member out, or use "
                f"training.precision=float32."
            )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread and by deterministic kernels, so that a shard is the same bytes everywhere."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=strict, warn_only=warn)
