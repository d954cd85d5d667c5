"""Jobs on evaluation actors: every actor is fed with pairs of model and task until none is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from boom_ray.runtime import cause  # isort: skip  (sets Ray's environment before Ray is imported)

import ray

from boom_ray.config import EvaluationConfig
from boom_ray.errors import BoomError
from boom_ray.evaluation.crew import Crew
from boom_ray.evaluation.schedule import Job, Schedule
from boom_ray.evaluation.tally import Tally
from boom_ray.events import Event, Report
from boom_ray.store import Store


@dataclass(frozen=True)
class Outcome:
    """What became of a job: key and figures of its artifact, or an error."""

    job: Job
    key: str = ""
    figures: dict[str, Any] | None = None
    error: str = ""


def run_jobs(
    store: Store, jobs: Sequence[Job], config: EvaluationConfig, report: Report, crew: Crew | None = None
) -> list[Outcome]:
    """Evaluate all jobs on actors; one that fails is reported in its outcome and the others go on.

    An actor that dies is restarted and its job tried once more.

    Args:
        store: takes the scores.
        jobs: what to evaluate.
        config: how.
        report: hears of every job twice, and how much of all is done.
        crew: actors that are there already; they are ended as those started here are.

    Raises:
        EvaluationError: the cluster has no room for a single actor.
    """
    with crew or Crew(store, config) as actors:
        actors.start(len(jobs), all(job.task.path is not None for job in jobs))
        return list(_feed(actors.ready(), Schedule(jobs), Tally(jobs, report), report))


def _feed(actors: Sequence[Any], schedule: Schedule, tally: Tally, report: Report) -> Iterator[Outcome]:
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
        tally.end(job)
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
