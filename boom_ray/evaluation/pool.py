"""Evaluation actors: long-lived processes that keep mteb and their last model, fed with pairs until none is left."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boom_ray.runtime import cause, nodes_resources, room  # isort: skip  (sets Ray's environment before Ray is imported)

import ray

from boom_ray.config import EvaluationConfig
from boom_ray.errors import BoomError, EvaluationError
from boom_ray.evaluation.schedule import Job, Schedule
from boom_ray.events import Event, Report
from boom_ray.store import Store

START_TIMEOUT_S = 600.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: key and figures of its artifact, or an error."""

    job: Job
    key: str = ""
    figures: dict[str, Any] | None = None
    error: str = ""


class EvaluationActor:
    """The process of one `Evaluator`; imports mteb and torch when its first job comes."""

    def __init__(self, store: Store, config: EvaluationConfig, board: Any = None) -> None:
        """Remember what the evaluator needs; ``board`` is the actor of `boom_ray.evaluation.sharing.Board`."""
        self._arguments = (store, config, None if board is None else functools.partial(_call, board))
        self._evaluator: Any = None

    def ready(self) -> bool:
        """Whether the actor has been placed."""
        return True

    def score(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Evaluate one pair; see `Evaluator.score`."""
        found: tuple[str, dict[str, Any]] = self._load().score(job.model, job.task, job.spec, job.inputs)
        return found

    @ray.method(max_task_retries=0)  # type: ignore[untyped-decorator]  # as Ray annotates it
    def help(self) -> None:
        """Embed blocks of other actors' tasks, until the actor is killed."""
        from boom_ray.evaluation.sharing import help_others

        call = self._arguments[2]
        assert call is not None
        help_others(call, lambda *block: self._load().embed_block(*block), lambda: False)

    def _load(self) -> Any:
        if self._evaluator is None:
            from boom_ray.evaluation.evaluator import Evaluator

            self._evaluator = Evaluator(*self._arguments)
        return self._evaluator


def _call(board: Any, method: str, *arguments: Any) -> Any:
    return ray.get(getattr(board, method).remote(*arguments))


def run_jobs(store: Store, jobs: Sequence[Job], config: EvaluationConfig, report: Report) -> list[Outcome]:
    """Evaluate all jobs on actors; one that fails is reported in its outcome and the others go on.

    An actor that dies is restarted and its job tried once more.

    Raises:
        EvaluationError: the cluster has no room for a single actor.
    """
    from boom_ray.evaluation.sharing import Board

    board = ray.remote(Board).options(num_cpus=0).remote()
    actors = _start(store, jobs, config, board)
    try:
        return list(_feed(actors, Schedule(jobs), report))
    finally:
        for actor in [*actors, board]:
            ray.kill(actor)


def actor_count(config: EvaluationConfig, jobs: int, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many actors to start: as configured, or as fit and no more than there are jobs; 0 if not one fits.

    More than there are jobs are started if the user says so: they help with big tasks.
    """
    return min(config.actors or jobs, room(nodes, config.cpus_per_actor, config.gpus_per_actor))


def _start(store: Store, jobs: Sequence[Job], config: EvaluationConfig, board: Any) -> list[Any]:
    count = actor_count(config, len(jobs), nodes_resources(wait_s=10))
    all_local = all(job.task.path is not None for job in jobs)
    factory = ray.remote(EvaluationActor).options(
        num_cpus=config.cpus_per_actor,
        num_gpus=config.gpus_per_actor,
        max_restarts=-1,
        max_task_retries=1,
        runtime_env={"env_vars": OFFLINE if all_local else {}},
    )
    actors = [factory.remote(store, config, board) for _ in range(max(count, 1))]
    if count == 0:
        _wait_for_room(actors[0], config)
    return actors


def _wait_for_room(actor: Any, config: EvaluationConfig) -> None:
    """An autoscaler may still bring the node; without one this ends in an error instead of waiting for ever."""
    need = f"{config.cpus_per_actor:g} CPUs and {config.gpus_per_actor:g} GPUs"
    log.warning("No node has room for an evaluation actor (%s); waiting for one to join.", need)
    ready, _ = ray.wait([actor.ready.remote()], timeout=START_TIMEOUT_S)
    if not ready:
        ray.kill(actor)
        raise EvaluationError(
            f"No node of the cluster has the {need} that an evaluation actor asks for. "
            f"Lower evaluation.cpus_per_actor or evaluation.gpus_per_actor, or add nodes."
        )


def _feed(actors: Sequence[Any], schedule: Schedule, report: Report) -> Iterator[Outcome]:
    running: dict[Any, tuple[Any, Job]] = {}

    def give(actor: Any, loaded: str | None) -> None:
        job = schedule.take(loaded)
        if job is None:
            actor.help.remote()  # until it is killed; what becomes of it is nobody's loss
            return
        report(Event("scores", job.unit, 0, 1))
        running[actor.score.remote(job)] = (actor, job)

    for actor in actors:
        give(actor, None)
    while running:
        (ref,), _ = ray.wait(list(running), num_returns=1)
        actor, job = running.pop(ref)
        outcome = _collect(ref, job)
        give(actor, job.model.name)
        report(_finished(outcome))
        yield outcome


def _collect(ref: Any, job: Job) -> Outcome:
    try:
        key, figures = ray.get(ref)
        return Outcome(job, key, figures)
    except (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError) as error:
        text = (
            f"The evaluation process died, and died again on a second try; the machine may have run out of memory. "
            f"Lower evaluation.actors or evaluation.batch_size and run the same command again. Ray says: {error}"
        )
        return Outcome(job, error=text)
    except Exception as error:  # whatever one task raises must not lose the others
        inner = cause(error)
        text = str(inner) if isinstance(inner, BoomError) else f"{type(inner).__name__}: {inner}"
        return Outcome(job, error=text)


def _finished(outcome: Outcome) -> Event:
    if outcome.figures is None:
        return Event("scores", outcome.job.unit, 1, 1, note=f"failed: {outcome.error.splitlines()[0][:100]}")
    figures = {"score": outcome.figures["score"], "seconds": outcome.figures["seconds"]}
    return Event("scores", outcome.job.unit, 1, 1, figures)
