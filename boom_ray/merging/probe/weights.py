"""The stage of learned weights: base, members and a sample of the corpus in, weights and scale as an artifact out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.config import ModelConfig
from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.methods.positioning import chain
from boom_ray.merging.probe.learned import Learned, Position, learn
from boom_ray.merging.probe.members import Running, Source, named_parameters, parameter_keys, read_tensor
from boom_ray.merging.probe.sample import LossSettings, Sample, SampleJob
from boom_ray.merging.reading.checkpoint import Checkpoint
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.encoder import Encoder
from boom_ray.store import Artifact, Draft, Store, artifact_key

KIND = "weights"
VERSION = 1
"""Raise it when the same spec gives another content."""
UNIT = "learned weights"


@dataclass(frozen=True)
class WeightsJob:
    """Everything that determines learned weights, and where their inputs are.

    Attributes:
        members: in the order in which they are joined.
        base: what they were trained from.
        sample: the sample that the weights are learned on.
        model: pooling, normalisation, gradient checkpointing.
        loss: the loss that members were trained with.
    """

    members: tuple[MemberRef, ...]
    base: MemberRef
    sample: SampleJob
    model: ModelConfig
    loss: LossSettings

    def spec(self, store: Store) -> dict[str, Any]:
        """The fields that determine the content."""
        probe = self.sample.probe
        return {
            "sample": self.sample.spec(),
            "loss": self.loss.identity(),
            "model": Source(self.base, None, self.model).identity(store),
            "learn": {name: getattr(probe, name) for name in ("steps", "learning_rate", "penalty")},
        }

    def inputs(self) -> dict[str, Any]:
        """What they are made from."""
        members = [member.fingerprint for member in self.members]
        return {"members": members, "base": self.base.fingerprint, "corpus": self.sample.corpus}


def learn_weights(
    store: Store,
    members: Sequence[MemberRef],
    base: MemberRef,
    corpus: Artifact,
    probe: ProbeConfig,
    model: ModelConfig,
    loss: LossSettings,
    report: Report = silent,
    cpus: int = 1,
    gpus: float = 0.0,
) -> Artifact:
    """Learn the weights and the scale of `self_positioning` in a Ray task; what exists is returned at once.

    Args:
        store: where corpus and members are and the result goes.
        members: the members, folders or adapters over the base; their order matters.
        base: what they were trained from.
        corpus: artifact of the corpus stage, tokenised for this model.
        probe: which examples, steps, learning rate and penalty.
        model: pooling, normalisation and gradient checkpointing.
        loss: the loss that members were trained with.
        report: told of every step.
        cpus: cores and threads of the task; changes nothing beyond rounding.
        gpus: 0 or 1.

    Returns:
        An artifact of kind ``weights`` without files. Figures: ``weights`` (sum 1, in the members' order), ``scale``,
        ``curve`` (loss of every step), ``loss_before`` and ``loss_after`` (mean over the sample, with equal weights and
        scale 1, and with what was learned), ``examples`` (by dataset), ``seconds``.

    Raises:
        MergeError: no members, no node that can hold them all, tensors that do not fit, a loss that is not finite.
        ModelError: the base has modules that cannot be run.

    Memory: (M + 3) x 4 bytes per parameter: the model, its gradients, the base and M differences.
    """
    job = WeightsJob(tuple(members), base, SampleJob.of(corpus, probe), model, loss)
    if not job.members:
        raise MergeError("There is nothing to learn weights for: no member was given.")
    found = store.get(KIND, artifact_key(KIND, job.spec(store), job.inputs(), VERSION))
    if found is not None:
        report(Event("merge", UNIT, 1, 1, note="cached"))
        return found
    from boom_ray.merging.probe.task import run_task

    return run_task(store, job, report, cpus, gpus)


def learn_weights_here(store: Store, job: WeightsJob, report: Report = silent, gpu: bool = False) -> Artifact:
    """Learn weights in this process; see `learn_weights`."""

    def build(draft: Draft) -> None:
        started = time.perf_counter()
        sample = job.sample.open(store, job.loss.negatives)
        running, position = _position(store, job, torch.device("cuda" if gpu else "cpu"))
        probe, members = job.sample.probe, len(job.members)

        step_loss = job.sample.step_loss(job.loss)

        def loss(batch: Batch) -> float:
            return step_loss.backward(running.encoder, batch)

        def tell(done: int, value: float) -> None:
            report(Event("merge", UNIT, done, probe.steps, {"loss": value}))

        before = _mean_loss(running.encoder, position, sample, job, Learned((1 / members,) * members, 1.0, ()))
        batches = [sample.batch(index) for index in range(len(sample))]
        learned = learn(position, members, batches, loss, probe, tell)
        after = _mean_loss(running.encoder, position, sample, job, learned)
        draft.figures = {
            "weights": list(learned.weights),
            "scale": learned.scale,
            "curve": list(learned.curve),
            "loss_before": before,
            "loss_after": after,
            "examples": sample.examples,
            "seconds": round(time.perf_counter() - started, 3),
        }

    return store.materialize(KIND, job.spec(store), job.inputs(), build, VERSION)


def _position(store: Store, job: WeightsJob, device: torch.device) -> tuple[Running, Position]:
    """The base as a live model, and the members' differences from it beside it."""
    running = Source(job.base, None, job.model).load(store, device)
    parameters = {name: one for name, one in named_parameters(running.encoder) if one.requires_grad}
    base = {name: one.detach().clone() for name, one in parameters.items()}
    differences = []
    for member in job.members:
        with Source(member, job.base, job.model).opened(store) as checkpoint:
            differences.append(_differences(running.encoder, checkpoint, base))
    return running, Position(parameters, base, differences)


def _differences(encoder: Encoder, checkpoint: Checkpoint, base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    keys = parameter_keys(encoder, checkpoint)
    found: dict[str, torch.Tensor] = {}
    for name, value in base.items():
        found[name] = read_tensor(checkpoint, keys[name]).to(value.device).sub_(value)
        if not bool(torch.isfinite(found[name]).all()):
            raise MergeError(
                f"Tensor {keys[name]} of {checkpoint.label} holds NaN or infinity: that training diverged. Leave this "
                f"member out or train it again with a lower learning rate."
            )
    return found


def _mean_loss(encoder: Encoder, position: Position, sample: Sample, job: WeightsJob, at: Learned) -> float:
    """Mean loss over all examples of the sample, each step with its own negatives."""
    weights = torch.tensor(at.weights, dtype=torch.float64)
    position.move((at.scale * chain(position.gram, weights)).tolist())
    total, loss = 0.0, job.sample.step_loss(job.loss)
    with torch.no_grad():
        for index in range(len(sample)):
            batch = sample.batch(index)
            total += loss.value(encoder, batch) * batch.size
    return total / sum(sample.examples.values())
