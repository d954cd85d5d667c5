"""Trials on Ray actors that stay: each keeps a live model and the members that it has met."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from boom_ray.runtime import cause, nodes_resources  # isort: skip  (sets Ray's environment before Ray is imported)

import ray

from boom_ray.config import EvaluationConfig, ModelConfig
from boom_ray.errors import BoomError, MergeError, StoreError
from boom_ray.evaluation.crew import OFFLINE, actor_count, wait_for_room
from boom_ray.events import Event, Report, silent
from boom_ray.store import Store
from boom_ray.sweeps.failures import RETRY
from boom_ray.sweeps.job import KIND, Identity, TaskSpecs, TrialJob, identify
from boom_ray.sweeps.turns import Turns

STAGE = "trials"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: what was asked for.
        figures: see `boom_ray.sweeps.live.LiveEvaluator.score`; empty if it ended without any.
        error: why there are no scores.
        stored: it was in the store already.
    """

    job: TrialJob
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    stored: bool = False

    @classmethod
    def of(cls, job: TrialJob, figures: dict[str, Any], stored: bool) -> Outcome:
        """From the figures of an artifact."""
        return cls(job, figures, str(figures.get("error", "")), stored)

    @property
    def scores(self) -> dict[str, float]:
        """Task to main score; empty after an error."""
        return dict(self.figures.get("scores", {}))

    @property
    def types(self) -> dict[str, str]:
        """Task to mteb's type; empty after an error."""
        return dict(self.figures.get("types", {}))

    @property
    def seconds(self) -> float:
        """Of merge and evaluation, when they were computed."""
        return float(self.figures.get("seconds", 0.0))


@dataclass
class Wanted:
    """A trial that is to be computed.

    Attributes:
        identity: of its jobs.
        places: of these jobs among all.
    """

    identity: Identity
    places: list[int]


class TrialActor:
    """The process of one `LiveEvaluator`; imports mteb and torch when its first job comes."""

    def __init__(self, store: Store, evaluation: EvaluationConfig, model: ModelConfig) -> None:
        """Remember what the evaluator needs."""
        self._arguments = (store, evaluation, model)
        self._evaluator: Any = None

    def ready(self) -> bool:
        """Whether the actor has been placed."""
        return True

    def score(self, job: TrialJob) -> tuple[dict[str, Any], frozenset[str]]:
        """The figures of a trial, and the fingerprints of the models that are in memory now."""
        if self._evaluator is None:
            from boom_ray.sweeps.live import LiveEvaluator

            self._evaluator = LiveEvaluator(*self._arguments)
        return self._evaluator.score(job).figures, self._evaluator.held


class Arena:
    """A pool of actors that score trials; kept between calls.

    Args:
        store: where members are and trials go.
        evaluation: how trials are evaluated, and what an actor asks for; its tasks do not matter.
        model: templates.
    """

    def __init__(self, store: Store, evaluation: EvaluationConfig, model: ModelConfig) -> None:
        """Start nothing."""
        self.store, self.evaluation, self.model = store, evaluation, model
        self._specs = TaskSpecs(evaluation)
        self._actors: list[Any] = []
        self._held: list[frozenset[str]] = []

    def score(self, jobs: Sequence[TrialJob], report: Report = silent) -> list[Outcome]:
        """Score all jobs; one that fails is told in its outcome and the others go on.

        What the store has is not computed again, and no actor is started if that is everything; the same trial
        asked for twice is computed once. An actor that dies is restarted and its job tried once more.

        Args:
            jobs: the trials.
            report: hears of every one when it starts and when it ends.

        Returns:
            An outcome per job, in their order.

        Raises:
            EvaluationError: a task's folder does not exist, or the cluster has no room for a single actor.
            StoreError: the store cannot be read or written.
        """
        found: dict[int, Outcome] = {}
        wanted: dict[str, Wanted] = {}
        for place, job in enumerate(jobs):
            try:
                identity = identify(self.store, job, self._specs, self.model)
            except MergeError as error:  # the recipe does not fit; the others may
                found[place] = Outcome(job, error=str(error))
                continue
            artifact = self.store.get(KIND, identity.key)
            if artifact is not None:
                found[place] = Outcome.of(job, artifact.figures, stored=True)
            else:
                wanted.setdefault(identity.key, Wanted(identity, [])).places.append(place)
        for outcome in found.values():
            report(_ended(outcome))
        if wanted:
            try:
                found |= self._compute(jobs, list(wanted.values()), report)
            except BaseException:
                self.release()  # whatever they still work on
                raise
        return [found[place] for place in range(len(jobs))]

    def release(self) -> None:
        """End the actors, so that others have their room; the next trials start them again."""
        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor)
        self._actors, self._held = [], []

    def close(self) -> None:
        """End the actors."""
        self.release()

    def _compute(self, jobs: Sequence[TrialJob], wanted: Sequence[Wanted], report: Report) -> dict[int, Outcome]:
        """Place to outcome."""
        self._start(len(wanted), all(task.path is not None for job in jobs for task in job.tasks))
        turns = Turns([(one.identity.models, one) for one in wanted])
        running: dict[Any, tuple[int, Wanted]] = {}
        found: dict[int, Outcome] = {}

        def give(number: int) -> None:
            one = turns.take(number, self._held[number])
            if one is not None:
                job = jobs[one.places[0]]
                report(Event(STAGE, job.name, 0, 1))
                running[self._actors[number].score.remote(job)] = (number, one)

        for number in range(len(self._actors)):
            give(number)
        while running:
            (ref,), _ = ray.wait(list(running), num_returns=1)
            number, one = running.pop(ref)
            figures, self._held[number], error = _collect(ref)
            give(number)
            for place in one.places:
                job = jobs[place]
                found[place] = Outcome(job, error=error) if error else Outcome.of(job, figures, stored=False)
                report(_ended(found[place]))
        return found

    def _start(self, jobs: int, all_local: bool) -> None:
        """Start the actors that are missing, as many as fit and no more than there are jobs."""
        fit = actor_count(self.evaluation, jobs, nodes_resources(wait_s=10))
        factory = ray.remote(TrialActor).options(
            num_cpus=self.evaluation.cpus_per_actor,
            num_gpus=self.evaluation.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=1,
            runtime_env={"env_vars": OFFLINE if all_local else {}},
        )
        while len(self._actors) < max(1, min(fit, jobs)):
            self._actors.append(factory.remote(self.store, self.evaluation, self.model))
            self._held.append(frozenset())
        if fit == 0:
            wait_for_room(self._actors[0], self.evaluation)


def _collect(ref: Any) -> tuple[dict[str, Any], frozenset[str], str]:
    """Figures, what the actor has in memory, and an error."""
    try:
        figures, held = ray.get(ref)
        return figures, held, ""
    except (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError) as error:
        text = (
            f"The process that computed this trial died, and died again on a second try; the machine may have run out "
            f"of memory. Lower evaluation.actors or evaluation.batch_size and run the same command again with {RETRY}. "
            f"Ray says: {error}"
        )
        return {}, frozenset(), text
    except Exception as error:  # whatever one trial raises must not lose the others
        inner = cause(error)
        if isinstance(inner, StoreError):
            raise inner from None  # hits every trial, and is no fault of this one's
        text = str(inner) if isinstance(inner, BoomError) else f"{type(inner).__name__}: {inner}"
        return {}, frozenset(), text


def _ended(outcome: Outcome) -> Event:
    name, scores = outcome.job.name, outcome.scores
    if outcome.error:
        return Event(STAGE, name, 1, 1, note=f"failed: {outcome.error.splitlines()[0][:100]}")
    figures = {"score": sum(scores.values()) / len(scores), "seconds": outcome.seconds}
    return Event(STAGE, name, 1, 1, figures, "stored" if outcome.stored else "")
