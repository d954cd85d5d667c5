"""What runs inside a Ray Train worker: load the base, continue from the last checkpoint, train, leave the member."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.artifacts.batches import Batch, BatchReader
from boom_ray.artifacts.plan import open_plan
from boom_ray.artifacts.tokens import open_corpus
from boom_ray.config import ModelConfig, TrainingConfig
from boom_ray.errors import BoomError, TrainingError
from boom_ray.events import Event
from boom_ray.model.encoder import Encoder, load_encoder, save_model
from boom_ray.model.folder import weights_fingerprint
from boom_ray.model.tokenizer import load_tokenizer
from boom_ray.store import Draft, Store, artifact_key
from boom_ray.training.group import Group
from boom_ray.training.loop import Loop
from boom_ray.training.state import load_state, save_state

KIND = "member"
VERSION = 2


@dataclass(frozen=True)
class MemberJob:
    """Everything that determines one member, and where its inputs are.

    Attributes:
        name: for messages; in no key.
        bag: fingerprint of the bag.
        bag_key: key of the bag's artifact.
        corpus: fingerprint of the corpus; the bag says which examples, the corpus what their tokens are.
        parts: dataset to the keys of its token parts.
        in_batch: dataset to its negatives policy.
        base: fingerprint of the base's artifact.
        base_place: where it is, see `boom_ray.store.Artifact.place`.
        model: the base and how it becomes an encoder.
        training: how it is trained.
        seed: seed of dropout and of the choice of negatives.
        prompts: what the saved model stores as prompts.
        max_tokens: longest text that the saved model reads; tokens.
    """

    name: str
    bag: str
    bag_key: str
    corpus: str
    parts: dict[str, list[str]]
    in_batch: dict[str, bool]
    base: str
    base_place: str
    model: ModelConfig
    training: TrainingConfig
    seed: int
    prompts: dict[str, str]
    max_tokens: int

    def spec(self) -> dict[str, Any]:
        """The fields that determine the member's weights and folder."""
        model = self.model.identity()
        for origin in ("base", "revision"):
            model.pop(origin)  # the fingerprint of the weights says it better
        return {
            "model": model,
            "training": self.training.identity(),
            "seed": self.seed,
            "in_batch": self.in_batch,
            "prompts": self.prompts,
            "max_tokens": self.max_tokens,
        }

    def inputs(self) -> dict[str, Any]:
        """What it is trained from."""
        return {"bag": self.bag, "corpus": self.corpus, "base": self.base}

    @property
    def key(self) -> str:
        """Key of the member's artifact."""
        return artifact_key(KIND, self.spec(), self.inputs(), VERSION)


def train_worker(payload: dict[str, Any]) -> dict[str, str] | None:
    """Entry of a Ray Train worker; ``payload`` holds ``job``, ``store`` and ``queue``.

    Returns:
        None, or on rank 0 ``{"error": class name, "text": message}`` of an error that a restart would only repeat;
        a TrainingError is met by all ranks in the same step.
    """
    _quiet_reports()
    try:
        _train(payload["job"], payload["store"], payload["queue"])
    except BoomError as error:
        group = Group.current()
        if group.workers > 1 and not isinstance(error, TrainingError):
            raise  # the others may be waiting for this worker, and only a dead one lets them go
        return {"error": type(error).__name__, "text": str(error)} if group.rank == 0 else None
    return None


def _train(job: MemberJob, store: Store, queue: Any) -> None:
    started = time.monotonic()
    torch.set_num_threads(max(1, int(job.training.resources.cpus_per_worker)))
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    group = Group.current()
    loop, fault = None, None
    try:
        loop = _prepare(job, store, group)
    except BoomError as error:
        fault = str(error)
    fault = group.first_fault(fault)
    if loop is None or fault is not None:
        raise TrainingError(fault or "another worker could not start")
    start, curve = _restore(loop)

    def log(done: int, figures: dict[str, float]) -> None:
        curve.append((done, figures["loss"]))
        _tell(group, queue, Event("members", job.name, done, loop.steps, figures))

    if start:
        _tell(group, queue, Event("members", job.name, start, loop.steps, {}, f"continues at step {start}"))
    loop.run(start, log, lambda done: _checkpoint(loop, done, curve))
    if group.rank == 0:
        figures = {"steps": loop.steps, "examples": loop.steps * job.training.batch_size, "curve": curve}
        figures |= {"resumed_at": start, "seconds": time.monotonic() - started}
        _leave(store, job, loop.encoder, figures)


def _prepare(job: MemberJob, store: Store, group: Group) -> Loop:
    """Load model, plan and corpus; nothing here waits for other workers."""
    base = store.resolve(job.base_place)
    encoder = load_encoder(base, job.model, job.training.dropout, job.seed).to(ray.train.torch.get_device())
    plan = open_plan(store, job.bag_key)
    steps = min(len(plan), job.training.max_steps or len(plan))
    reader = BatchReader(
        open_corpus(store, job.parts), job.in_batch, job.training.negatives, job.seed, group.rank, group.workers
    )

    def batch(index: int) -> Batch:
        return reader.read(plan.step(index))

    return Loop(encoder, steps, batch, job.training, job.seed, group)


def _tell(group: Group, queue: Any, event: Event) -> None:
    """Send an event from rank 0; a queue that is gone costs figures, never the training."""
    if group.rank == 0:
        with contextlib.suppress(ray.exceptions.RayError):
            queue.put(event)


def _restore(loop: Loop) -> tuple[int, list[tuple[int, float]]]:
    """Continue from the run's last checkpoint; returns the finished steps and the loss curve so far."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, []
    with checkpoint.as_directory() as folder:
        return load_state(Path(folder), loop.encoder, loop.optimizer)


def _checkpoint(loop: Loop, done: int, curve: list[tuple[int, float]]) -> None:
    """Report a checkpoint; all ranks call it, rank 0 brings the files (weights are the same on all)."""
    if loop.group.rank:
        ray.train.report({"step": done})
        return
    with tempfile.TemporaryDirectory(prefix="boom-checkpoint-") as folder:
        save_state(Path(folder), loop.encoder, loop.optimizer, done, curve)
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": done}, checkpoint=checkpoint, checkpoint_dir_name=f"step{done:09d}")


def _leave(store: Store, job: MemberJob, encoder: Encoder, figures: dict[str, Any]) -> None:
    """Write the member's artifact: a sentence-transformers folder under ``model/``."""

    def build(draft: Draft) -> None:
        folder = draft.path / "model"
        folder.mkdir()
        tokenizer = load_tokenizer(store.resolve(job.base_place), job.model)
        save_model(encoder, tokenizer, folder, job.prompts, job.max_tokens)
        draft.figures |= figures
        draft.fingerprint = weights_fingerprint(folder)

    store.materialize(KIND, job.spec(), job.inputs(), build, VERSION)


def _quiet_reports() -> None:
    """Ray logs one line per reported checkpoint under a logger that its own settings do not reach."""
    import ray.train.v2._internal.execution.context as context

    context.logger.setLevel(logging.WARNING)
