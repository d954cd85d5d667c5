"""What runs inside a Ray Train worker: load the base, continue from the last checkpoint, train, leave the member."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.artifacts.batches import Batch, BatchReader
from boom_ray.artifacts.plan import open_plan
from boom_ray.artifacts.tokens import open_corpus
from boom_ray.config.loss import GRADED
from boom_ray.errors import BoomError, TrainingError
from boom_ray.events import Event
from boom_ray.model.encoder import load_encoder
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Draft, Store
from boom_ray.training.checkpoints import Checkpoints
from boom_ray.training.group import Group
from boom_ray.training.job import KIND, VERSION, MemberJob, TrunkJob
from boom_ray.training.leave import write_folder
from boom_ray.training.loop import Listeners, Loop, Plan, check
from boom_ray.training.scores import Leaver
from boom_ray.training.trunk import begin, leave_trunk


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
        place = ray.train.get_context()
        if place.get_world_size() > 1 and not isinstance(error, TrainingError):
            raise  # the others may be waiting for this worker, and only a dead one lets them go
        return {"error": type(error).__name__, "text": str(error)} if place.get_world_rank() == 0 else None
    return None


def _train(job: MemberJob, store: Store, queue: Any) -> None:
    started = time.monotonic()
    torch.set_num_threads(max(1, int(job.training.resources.cpus_per_worker)))
    if ray.train.torch.get_device().type == "cpu":  # on GPUs it would cost much and promise little
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
    group = Group.current()
    loop = _start(job, store, group)
    if job.trunk is not None and ray.train.get_checkpoint() is None:
        begin(store, job.trunk, loop)
    checkpoints = Checkpoints(loop, job.training, started)
    resumed = checkpoints.restore()
    tell = _teller(group, queue)

    def log(done: int, figures: dict[str, float]) -> None:
        tell(Event("members", job.name, done, loop.plan.end, figures))

    note = f"continues at step {resumed}, " if resumed else ""
    tell(Event("members", job.name, resumed, loop.plan.end, {}, note + loop.settings.text()))
    with _leaving(job, store, loop, tell) as leave:

        def update(done: int) -> None:
            checkpoints.offer(done)
            leave(done)

        loop.run(Listeners(log, update))
    loop.check()  # a trunk may end between log lines
    figures: dict[str, Any] = {"steps": loop.plan.end, "examples": loop.plan.end * job.training.batch_size}
    figures |= {"curve": loop.progress.curve, "skipped_steps": loop.progress.skipped, "resumed_at": resumed}
    figures |= {"computed": loop.settings.text(), "seconds": checkpoints.seconds()}
    if isinstance(job, TrunkJob):
        leave_trunk(store, job, loop, figures)
        tell(Event("members", job.name, loop.plan.end, loop.plan.end))
        return
    weights = loop.left()  # of sharded weights, all workers take part
    if group.rank == 0:
        _leave(store, job, weights, figures)


def _start(job: MemberJob, store: Store, group: Group) -> Loop:
    """The loop, on all workers or on none.

    Raises:
        TrainingError: a worker could not start; says which and why.
    """
    loop, fault = None, None
    try:
        loop = _prepare(job, store, group)
    except BoomError as error:
        fault = str(error)
    fault = group.first_fault(fault)
    if loop is None or fault is not None:
        raise TrainingError(fault or "another worker could not start")
    return Loop(*loop)


def _prepare(job: MemberJob, store: Store, group: Group) -> tuple[Any, ...]:
    """Load model, plan and corpus; nothing here waits for other workers, and what cannot work is found here."""
    base = store.resolve(job.base_place)
    model = job.model.model_copy(update={"dense": ()})  # the base's artifact has them already
    encoder = load_encoder(base, model, job.training.dropout, job.seed).to(ray.train.torch.get_device())
    encoder.check_length(job.longest)
    check(encoder, job.training)
    plan = open_plan(store, job.bag_key)
    steps = min(len(plan), job.training.max_steps or len(plan))
    corpus, place = open_corpus(store, job.parts), (job.seed, group.rank, group.workers)
    graded = frozenset(name for name, policy in job.policies.items() if policy.kind in GRADED)
    reader = BatchReader(corpus, job.training.negatives, *place, without_negatives=graded)

    def batch(index: int) -> Batch:
        return reader.read(*plan.parts(index))

    stop = job.steps if isinstance(job, TrunkJob) else None
    found = Plan(steps, batch, job.policies, job.longest, stop, plan.stages)
    return encoder, found, job.training, job.seed, group


@contextlib.contextmanager
def _leaving(job: MemberJob, store: Store, loop: Loop, tell: Callable[[Any], None]) -> Any:
    """A function to call after every update, which leaves weights to be evaluated where it is time."""
    config = job.training.scores
    if config is None:
        yield lambda done: None
        return
    leaver = Leaver(store, job, loop.plan.end, tell)
    last = loop.progress.step

    def leave(done: int) -> None:
        nonlocal last
        if done // config.every > last // config.every:
            last = done
            weights = loop.left()
            if loop.group.rank == 0:
                leaver.leave(done, weights)

    try:
        yield leave
    finally:
        leaver.close()


def _teller(group: Group, queue: Any) -> Callable[[Any], None]:
    """Sends from rank 0; a queue that is gone costs figures, never the training."""

    def tell(item: Any) -> None:
        if group.rank == 0:
            with contextlib.suppress(ray.exceptions.RayError):
                queue.put(item)

    return tell


def _leave(store: Store, job: MemberJob, weights: dict[str, torch.Tensor], figures: dict[str, Any]) -> None:
    """Write the member's artifact: a sentence-transformers folder under ``model/``."""

    def build(draft: Draft) -> None:
        folder = draft.path / "model"
        folder.mkdir()
        write_folder(store, job, weights, folder)
        draft.figures |= figures
        draft.fingerprint = weights_fingerprint(folder)

    store.materialize(KIND, job.spec(), job.inputs(), build, VERSION)


def _quiet_reports() -> None:
    """Ray logs one line per reported checkpoint under a logger that its own settings do not reach."""
    import ray.train.v2._internal.execution.context as context

    context.logger.setLevel(logging.WARNING)
