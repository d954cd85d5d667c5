"""Members of all arms and seeds of a study: planned together, named, trained once each, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from boom_ray.artifacts.plan import open_plan
from boom_ray.errors import BoomError, TrainingError
from boom_ray.flows.members import Foundation, Planned, all_jobs, plan_members, train
from boom_ray.flows.study.plan import ArmRun, whole
from boom_ray.flows.study.synergy import Search
from boom_ray.flows.workspace import Workspace
from boom_ray.store import Artifact, Store
from boom_ray.studies.results import Cost
from boom_ray.training.branches import branch, branch_jobs, steps_of, trained_steps
from boom_ray.training.job import MemberJob

Hear = Callable[[Sequence[MemberJob], bool], None]


@dataclass(frozen=True)
class PlannedArm:
    """An arm with a seed before its members are trained.

    Attributes:
        run: the arm and the seed.
        planned: its bags and jobs by bag name.
        steps: those of trunk and branches together; None for members that train on their own.
    """

    run: ArmRun
    planned: Planned
    steps: int | None = None

    @property
    def jobs(self) -> Mapping[str, MemberJob]:
        """Bag name to what is trained."""
        return self.planned.jobs


@dataclass(frozen=True)
class Trained:
    """All members that could be trained.

    Attributes:
        members: key of a job to its artifact.
        error: why others could not be; empty if there are none.
    """

    members: Mapping[str, Artifact]
    error: str

    def of(self, arm: PlannedArm) -> dict[str, Artifact]:
        """Bag name to the arm's members, in the order of the weights.

        Raises:
            TrainingError: one of them could not be trained.
        """
        lacking = [job.name for job in arm.jobs.values() if job.key not in self.members]
        if lacking:
            begins = tuple(f"{name}:" for name in lacking)
            own = [line.strip() for line in self.error.splitlines() if line.strip().startswith(begins)]
            raise TrainingError("\n".join(own) or f"{', '.join(lacking)} could not be trained")
        return {name: self.members[arm.jobs[name].key] for name in arm.run.bags}


def plan_arms(space: Workspace, foundation: Foundation, runs: Sequence[ArmRun]) -> list[PlannedArm]:
    """Draw the bags of all runs and describe their members; those that several need are one job of one name.

    A job is called after the first run that needs it and its bag there.

    Raises:
        BoomError: a bag gives no step, or a trunk cannot be.
    """
    plans = plan_members(space, foundation, [whole(run.config) if run.arm.trunk else run.config for run in runs])
    arms = [
        _branched(space.store, run, plan) if run.arm.trunk else PlannedArm(run, plan)
        for run, plan in zip(runs, plans, strict=True)
    ]
    names: dict[str, str] = {}
    for arm in arms:
        for bag, job in arm.jobs.items():
            names.setdefault(job.key, f"{arm.run.name}.{bag}")
    return [_renamed(arm, names) for arm in arms]


def _renamed(arm: PlannedArm, names: Mapping[str, str]) -> PlannedArm:
    jobs = {bag: replace(job, name=names[job.key]) for bag, job in arm.jobs.items()}
    return replace(arm, planned=replace(arm.planned, jobs=jobs))


def _branched(store: Store, run: ArmRun, plan: Planned) -> PlannedArm:
    """Members of different ratios as branches of one run over the bag of everything."""
    (job,) = plan.jobs.values()
    ratios = {bag.name: float(bag.ratio or 0) for bag in run.config.bags.resolved()}
    try:
        steps = steps_of(open_plan(store, job.bag_key), job.training)
        jobs = {one.name: one for one in branch_jobs(job, ratios, steps)}
        lengths = [branch(ratio, steps, job.training) for ratio in ratios.values()]
    except BoomError as error:
        raise type(error)(f"Arm {run.arm.name}: {error}") from error
    return PlannedArm(run, replace(plan, jobs=jobs), trained_steps(lengths))


def train_arms(space: Workspace, foundation: Foundation, arms: Sequence[PlannedArm], hear: Hear) -> Trained:
    """Train what the store lacks, all at once; a member that fails costs its arms only.

    Args:
        space: store, and who listens to progress.
        foundation: base and corpus.
        arms: all of them.
        hear: told of members that are about to be trained, and again with True when they are.
    """
    plans = [arm.planned for arm in arms]
    jobs = {job.key: job for job in all_jobs(plans)}
    missing = [job for job in jobs.values() if space.store.get(job.kind, job.key) is None]
    hear(missing, False)
    error = ""
    try:
        train(space, foundation, plans)
    except TrainingError as failed:
        error = str(failed)
    found = {key: space.store.get(job.kind, key) for key, job in jobs.items()}
    members = {key: artifact for key, artifact in found.items() if artifact is not None}
    hear([job for job in missing if job.key in members], True)
    return Trained(members, error)


class Accounts:
    """What arms cost, see `boom_ray.studies.results.Cost`.

    Args:
        store: where trunks are.
        full_run: examples of one pass over the study's data, in full batches.
        arms: all of them, to know what they share.
        trained: their members.
        searches: arm whose members are clusters to the search for them, which making the arm alone needs, too.
    """

    def __init__(
        self,
        store: Store,
        full_run: int,
        arms: Sequence[PlannedArm],
        trained: Trained,
        searches: Mapping[str, Search],
    ) -> None:
        """Count who needs each member and each search."""
        self.store, self.full_run, self.trained, self.searches = store, full_run, trained, searches
        self._users: dict[str, set[str]] = {}
        for arm in arms:
            for key in (*(job.key for job in arm.jobs.values()), *(one.key for one in self._search(arm))):
                self._users.setdefault(key, set()).add(arm.run.arm.name)

    def cost(self, arm: PlannedArm) -> Cost:
        """Of an arm whose members are all trained."""
        figures = {job.key: self.trained.members[job.key].figures for job in arm.jobs.values()}
        examples = {key: int(one["examples"]) for key, one in figures.items()}
        seconds = sum(float(one["seconds"]) for one in figures.values())
        if arm.steps is not None:
            runs = arm.steps * arm.run.config.training.batch_size / self.full_run
            return Cost(runs, seconds + self._trunks(arm), len(figures))
        for search in self._search(arm):
            examples[search.key], seconds = search.examples, seconds + search.seconds
        shared = sum(count for key, count in examples.items() if len(self._users[key]) > 1)
        return Cost(sum(examples.values()) / self.full_run, seconds, len(figures), shared / self.full_run)

    def _search(self, arm: PlannedArm) -> list[Search]:
        found = self.searches.get(arm.run.arm.name)
        return [] if found is None else [found]

    def _trunks(self, arm: PlannedArm) -> float:
        """Seconds of the trunk, from its beginning to the last fork."""
        keys: set[str] = set()
        for job in arm.jobs.values():
            trunk = job.trunk
            while trunk is not None:
                keys.add(trunk.key)
                trunk = trunk.trunk
        found = [self.store.get("trunk", key) for key in sorted(keys)]
        return sum(float(one.figures["seconds"]) for one in found if one is not None)
