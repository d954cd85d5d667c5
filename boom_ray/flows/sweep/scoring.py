"""What a sweep's trials score: their members trained once, then merged into live models and evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boom_ray.config import RunConfig, SweepConfig, TaskConfig
from boom_ray.errors import BoomError, StoreError, TrainingError
from boom_ray.evaluation.proxies import proxy_of
from boom_ray.flows.members import Foundation, Planned, all_jobs, are_drawn, plan_members, train
from boom_ray.flows.preparing import SEARCHED, Ground, Prepared, gathered, prepare
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.store import Artifact
from boom_ray.sweeps.arena import Arena, Outcome
from boom_ray.sweeps.failures import Failures
from boom_ray.sweeps.job import TrialJob
from boom_ray.sweeps.objectives import objectives
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.trials import Answer, Ask, Point, Trial
from boom_ray.training.job import KIND, MemberJob

Hear = Callable[[Sequence[MemberJob], bool], None]


@dataclass(frozen=True)
class Trained:
    """The members of a trial.

    Attributes:
        planned: bags and jobs.
        members: key of a job to its artifact.
    """

    planned: Planned
    members: dict[str, Artifact]


@dataclass(frozen=True)
class Ready:
    """A trial that can be merged.

    Attributes:
        job: the merge and its tasks.
        seconds: computing time of what was gathered or searched for it, and for no trial before.
        found: see `boom_ray.sweeps.trials.Answer`.
    """

    job: TrialJob
    seconds: float
    found: dict[str, Any]


class TrialScorer:
    """Answers what trials ask; see `boom_ray.sweeps.search.search`.

    Args:
        space: store, and who listens to progress.
        foundation: base and corpus.
        config: the sweep.
        hear: told of members that are about to be trained, and with True of those that are or were before.
        failures: what failed in earlier runs of this search.
    """

    def __init__(
        self, space: Workspace, foundation: Foundation, config: SweepConfig, hear: Hear, failures: Failures
    ) -> None:
        """Nothing is started before the first question."""
        self.failures = failures
        self.space, self.foundation, self.config, self.hear = space, foundation, config, hear
        precision = config.sweep.precision or foundation.evaluation.precision
        trials = foundation.evaluation.model_copy(update={"precision": precision})
        self.arena = Arena(space.store, trials, config.model)
        self._trained: dict[str, Trained | str] = {}
        self._heard: set[str] = set()
        self._prepared: dict[str, Prepared] = {}
        self._counted: set[str] = set()
        self._rungs = [self._tasks(size) for size in config.sweep.rungs]

    def __call__(self, asks: Sequence[Ask]) -> list[Answer]:
        """Train what is missing, merge and evaluate; an answer per question, in their order.

        A trial that failed in an earlier run of this search gets the same answer again.
        """
        kept = [self.failures.find(ask) for ask in asks]
        fresh = iter(self._answers([ask for ask, known in zip(asks, kept, strict=True) if known is None]))
        return [known if known is not None else next(fresh) for known in kept]

    def _answers(self, asks: Sequence[Ask]) -> list[Answer]:
        configs = [self._config(ask.point) for ask in asks]
        self.train([config for config in configs if isinstance(config, RunConfig)])
        jobs = [self._job(ask, config) for ask, config in zip(asks, configs, strict=True)]
        outcomes = iter(self.arena.score([one.job for one in jobs if isinstance(one, Ready)], self.space))
        return [
            self._answer(ask.rung, one, next(outcomes)) if isinstance(one, Ready) else Answer(error=one)
            for ask, one in zip(asks, jobs, strict=True)
        ]

    def close(self) -> None:
        """End all actors."""
        self.arena.close()

    def train(self, configs: Sequence[RunConfig]) -> None:
        """Train the members of some trials that were not trained before, all together."""
        fresh = {key: config for config in configs if (key := members_key(config)) not in self._trained}
        if not fresh:
            return
        plans = self._plans(fresh)
        missing = self._missing(all_jobs(list(plans.values())))
        error = ""
        if missing:
            self.arena.release()  # members need the room, and their training takes longer than loading a model again
            self.hear(missing, False)
            try:
                train(self.space, self.foundation, list(plans.values()))
            except TrainingError as failed:  # members that did not fail are in the store
                error = str(failed)
            self.hear([job for job in missing if self._stored(job) is not None], True)
        for key, plan in plans.items():
            found = {job.key: self._stored(job) for job in plan.jobs.values()}
            members = {name: artifact for name, artifact in found.items() if artifact is not None}
            lost = [job.name for job in plan.jobs.values() if job.key not in members]
            self._trained[key] = Trained(plan, members) if not lost else self._reason(lost, error)

    def member_keys(self, point: Point) -> dict[str, str]:
        """Bag name to the key of its member, of a trial that was scored; empty if there are no members."""
        config = self._config(point)
        found = self._trained.get(members_key(config)) if isinstance(config, RunConfig) else None
        return {name: job.key for name, job in found.planned.jobs.items()} if isinstance(found, Trained) else {}

    def trained(self, config: RunConfig) -> Trained:
        """The members of a trial's configuration; they were trained for it or are now.

        Raises:
            TrainingError: they could not be.
        """
        self.train([config])
        found = self._trained[members_key(config)]
        if isinstance(found, str):
            raise TrainingError(found)
        return found

    def members_of(self, trials: Sequence[Trial]) -> dict[str, tuple[str, Artifact]]:
        """Key of every member of the trials that did not fail, to its bag's name and its artifact."""
        found: dict[str, tuple[str, Artifact]] = {}
        for trial in trials:
            if trial.status == "failed":
                continue
            one = self.trained(trial_config(self.config, trial.point))
            for name, job in one.planned.jobs.items():
                found.setdefault(job.key, (name, one.members[job.key]))
        return found

    def with_baseline(self, config: RunConfig) -> tuple[Planned, dict[str, Artifact]]:
        """A trial's members and, if the sweep wants one, the member trained on everything in the same way.

        It comes after the search: the actors of trials have been released.

        Returns:
            Bags and jobs; key of a job to its artifact.

        Raises:
            TrainingError: one could not be trained.
        """
        (planned,) = plan_members(self.space, self.foundation, [config], core=True)
        missing = self._missing(list(planned.jobs.values()))
        if missing:
            self.hear(missing, False)
        trained = train(self.space, self.foundation, [planned])
        self.hear(missing, True)
        return planned, trained

    def prepared(self, config: RunConfig) -> Prepared:
        """Everything about a trial's merge; what was gathered or searched once is not gathered again.

        Raises:
            BoomError: its members could not be trained, or see `boom_ray.flows.preparing.prepare`.
        """
        return self._prepare(config)[1]

    def _prepare(self, config: RunConfig) -> tuple[str, Prepared]:
        """The same, and a key of what was gathered or searched; empty where nothing had to be."""
        found = self.trained(config)
        names = [bag.name for bag in config.bags.resolved()]
        inputs = MergeInputs(found.planned.refs(found.members, names), self.foundation.base_ref)
        needs = gathered(config.merge)
        if not needs:
            return "", Prepared(inputs, config.merge, {})
        whole = config.merge.identity() if needs & SEARCHED else None
        key = digest([[ref.fingerprint for ref in inputs.members], sorted(needs), config.merge.probe.identity(), whole])
        if key not in self._prepared:
            self.arena.release()
            loss = LossSettings.of(config.training)
            ground = Ground(config.model, self.foundation.evaluation, loss, self.foundation.corpus)
            self._prepared[key] = prepare(self.space, inputs, config.merge, ground)
        known = self._prepared[key]
        return key, known if needs & SEARCHED else replace(known, config=config.merge)

    def _config(self, point: Point) -> RunConfig | str:
        try:
            return trial_config(self.config, point)
        except BoomError as error:
            return str(error)

    def _plans(self, fresh: dict[str, RunConfig]) -> dict[str, Planned]:
        """Bags and member jobs of each; where one cannot be drawn, its trials fail and the others go on."""
        configs = {key: config.model_copy(update={"baseline": False}) for key, config in fresh.items()}
        try:
            return dict(zip(configs, self._planned(list(configs.values())), strict=True))
        except StoreError:
            raise  # hits every trial
        except BoomError:
            for key, config in list(configs.items()):
                try:
                    self._planned([config])
                except StoreError:
                    raise
                except BoomError as error:
                    self._trained[key] = str(error)
                    del configs[key]
        if not configs:
            return {}
        # all in one call, for that alone gives different members different names
        return dict(zip(configs, self._planned(list(configs.values())), strict=True))

    def _planned(self, configs: Sequence[RunConfig]) -> list[Planned]:
        """Bags and jobs; actors make room for tasks that draw bags, which would wait for it for ever."""
        if not are_drawn(self.space.store, self.foundation, configs):
            self.arena.release()
        return plan_members(self.space, self.foundation, configs)

    def _reason(self, lost: Sequence[str], error: str) -> str:
        """Why members could not be trained: their lines of a `TrainingError`."""
        begins = tuple(f"{name}:" for name in lost)
        own = [line.strip() for line in error.splitlines() if line.strip().startswith(begins)]
        told = error or f"{', '.join(lost)}: trained without an error, but not in the store {self.space.store.root}"
        return "\n".join(own) or told

    def _missing(self, jobs: Sequence[MemberJob]) -> list[MemberJob]:
        """Members that must be trained; those that the store has are heard of, once."""
        missing = [job for job in jobs if self._stored(job) is None]
        lacking = {job.key for job in missing}
        known = [job for job in jobs if job.key not in lacking | self._heard]
        self._heard |= {job.key for job in jobs}
        if known:
            self.hear(known, True)
        return missing

    def _stored(self, job: MemberJob) -> Artifact | None:
        return self.space.store.get(KIND, job.key)

    def _job(self, ask: Ask, config: RunConfig | str) -> Ready | str:
        """The merge and its tasks, or why there is none."""
        if isinstance(config, str):
            return config
        try:
            key, ready = self._prepare(config)
        except StoreError:
            raise  # hits every trial
        except BoomError as error:
            return str(error)
        size = self.config.sweep.rungs[ask.rung]
        name = f"trial {ask.number}, {'whole tasks' if size is None else f'size {size}'}"
        job = TrialJob(name, ready.inputs, ready.config, self._rungs[ask.rung])
        seconds = 0.0 if key in self._counted else ready.seconds
        self._counted.add(key)
        return Ready(job, seconds, found_by(ready) if gathered(config.merge) & SEARCHED else {})

    def _tasks(self, size: int | None) -> tuple[TaskConfig, ...]:
        tasks = self.foundation.evaluation.selection
        return tasks if size is None else proxy_of(tasks, size)

    def _answer(self, rung: int, ready: Ready, outcome: Outcome) -> Answer:
        """The scores under the names of the whole tasks, and the objectives."""
        seconds = ready.seconds + outcome.seconds
        if outcome.error:
            return Answer(error=outcome.error, seconds=seconds, stored=outcome.stored, found=ready.found)
        names = {
            proxy.name: task.name
            for proxy, task in zip(self._rungs[rung], self.foundation.evaluation.selection, strict=True)
        }
        scores = {names[proxy]: value for proxy, value in outcome.scores.items()}
        types = {names[proxy]: str(kind) for proxy, kind in outcome.figures["types"].items()}
        values = objectives(scores, types, self.config.sweep.objectives)
        return Answer(scores, values, seconds=seconds, stored=outcome.stored, found=ready.found)


def found_by(ready: Prepared) -> dict[str, Any]:
    """Weights and scale that a method found, as JSON values."""
    weights = {"weights": list(ready.config.weights)} if isinstance(ready.config.weights, tuple) else {}
    learned = ready.facts.get("learned", {})
    return weights | {name: learned[name] for name in ("scale",) if name in learned}


def members_key(config: RunConfig) -> str:
    """What decides the members of a configuration, as far as a sweep can change it."""
    return digest([config.seed, config.bags.identity(), config.training.identity()])
