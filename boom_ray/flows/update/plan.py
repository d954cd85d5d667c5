"""What an update will do, from its configuration and the lineage that it begins with; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boom_ray.config import EvaluationConfig, RunConfig, TaskConfig, UpdateConfig
from boom_ray.config.load import validate
from boom_ray.config.schedule import PLAIN
from boom_ray.config.update import TAKEN
from boom_ray.errors import ConfigError, StoreError
from boom_ray.evaluation.catalog import expand
from boom_ray.flows.lineage import Lineage, absolute, with_absolute_paths
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.run import MODEL
from boom_ray.store import ARTIFACT, Artifact, Store

OLD, ELSEWHERE = "old in-domain", "old out-of-domain"
NEW, NEW_ELSEWHERE = "new", "new out-of-domain"
LIMITS = ("max_query_tokens", "max_passage_tokens")


@dataclass(frozen=True)
class UpdatePlan:
    """An update, checked.

    Attributes:
        config: as the user gave it.
        before: what is updated.
        run: the configuration of everything: old and new datasets, old and new tasks, the update's training.
        groups: `OLD`, `ELSEWHERE`, `NEW` and `NEW_ELSEWHERE` to the names of their tasks.
        added: tasks that the old configuration did not have, whose texts the old data was not searched for.
    """

    config: UpdateConfig
    before: Lineage
    run: RunConfig
    groups: Mapping[str, tuple[str, ...]]
    added: tuple[TaskConfig, ...]

    def member(self, update: Artifact, bag: Artifact) -> MemberRef:
        """The update member as one to merge.

        Beside the model before, which counts for the examples it was made from, it counts for those of its bag, each
        once; beside other members for what it has seen, as they do.
        """
        seen, once = update.figures["examples"], sum(bag.figures["examples"].values())
        size = seen if self.config.from_members else once
        return MemberRef(self.config.name, update.place(MODEL), update.fingerprint, size)

    def to_merge(self, update: MemberRef, merged: Artifact) -> list[MemberRef]:
        """The models that are merged, in the order of the weights.

        Args:
            update: the update member.
            merged: the model before.
        """
        if self.config.from_members:
            return [*(member.ref for member in self.before.members), update]
        examples = sum(self.before.examples.values())
        return [MemberRef(self.before.name, merged.place(MODEL), merged.fingerprint, examples), update]


def plan_update(config: UpdateConfig, before: Lineage) -> UpdatePlan:
    """Put old and new together.

    Raises:
        ConfigError: a name is taken, a limit is another one, or the sections do not go together.
        MergeError: the recipe does not fit the models that are merged.
    """
    _check_names(config, before)
    old = with_absolute_paths(expand(before.config.evaluation))
    fresh = _new_tasks(config)
    _check_tasks(old, fresh, before.name)
    data = _combined(config, before, _tasks(old, fresh))
    run = validate(RunConfig, data, f"{config.name}, an update of {before.name}")
    moved = {task.name for task in fresh.tasks}
    groups = {
        OLD: tuple(task.name for task in old.in_domain if task.name not in moved),
        ELSEWHERE: tuple(task.name for task in old.out_of_domain if task.name not in moved),
        NEW: tuple(task.name for task in fresh.in_domain),
        NEW_ELSEWHERE: tuple(task.name for task in fresh.out_of_domain),
    }
    known = {task.name for task in old.all_tasks}
    added = tuple(task for task in fresh.all_tasks if task.name not in known)
    plan = UpdatePlan(config, before, run, {name: tasks for name, tasks in groups.items() if tasks}, added)
    resolve(config.merge, plan.to_merge(MemberRef(config.name, "", "", 1), _as_planned(before)))
    return plan


def artifact_of(store: Store, kind: str, key: str) -> Artifact:
    """An artifact that a lineage names.

    Raises:
        StoreError: it is gone.
    """
    found = store.get(kind, key)
    if found is None:
        raise StoreError(
            f"The lineage names {ARTIFACT}{kind}/{key}, which is missing from {store.root} or damaged. Run the job "
            f"that made it again: it computes what is missing, and only that."
        )
    return found


def _check_names(config: UpdateConfig, before: Lineage) -> None:
    taken = {before.name, *(layer.name for layer in before.layers), *(member.name for member in before.members)}
    if config.name in taken:
        raise ConfigError(
            f"name: {config.name} is the name of a run, update or member that {before.name} was made from. Give the "
            f"update another one, so that the earlier model stays."
        )
    if before.name in TAKEN:
        raise ConfigError(f"current: {before.name} stands for something else in reports of updates; rename the run.")
    twice = next((one.name for one in config.corpus.datasets if one.name in before.examples), None)
    if twice is not None:
        raise ConfigError(
            f"corpus.datasets: {before.name} was trained on a dataset {twice} already. List only what is new, under a "
            f"name of its own, e.g. {twice}-{config.name}; examples that are in the old one are left out and counted."
        )
    for limit in LIMITS:
        given, had = getattr(config.corpus, limit), getattr(before.config.corpus, limit)
        if given not in (None, had):
            raise ConfigError(
                f"corpus.{limit}: {before.name} has {had}, and the update must have the same (got {given}), or old and "
                f"new texts would be cut differently. Leave it out."
            )


def _new_tasks(config: UpdateConfig) -> EvaluationConfig:
    given = config.evaluation
    groups = {name: getattr(given, name) for name in ("in_domain", "out_of_domain", "selection", "benchmarks")}
    return with_absolute_paths(expand(EvaluationConfig(**groups)))


def _check_tasks(old: EvaluationConfig, fresh: EvaluationConfig, current: str) -> None:
    """A task that is named again is the same task."""
    known = {task.name: absolute(task) for task in old.all_tasks}
    for task in fresh.all_tasks:
        if task.name in known and known[task.name].identity() != task.identity():
            raise ConfigError(
                f"evaluation: {current} has a task {task.name} with other settings. Give the same ones to report it as "
                f"new, or another name."
            )


def _tasks(old: EvaluationConfig, fresh: EvaluationConfig) -> dict[str, list[dict[str, Any]]]:
    """All tasks by group, as JSON; one that is named again goes where the update has it."""
    moved = {task.name for task in fresh.all_tasks}
    return {
        group: [
            task.model_dump(mode="json")
            for task in (*(one for one in getattr(old, group) if one.name not in moved), *getattr(fresh, group))
        ]
        for group in ("in_domain", "out_of_domain", "selection")
    }


def _combined(config: UpdateConfig, before: Lineage, tasks: dict[str, Any]) -> dict[str, Any]:
    """The configuration of everything, as JSON.

    The update's bag is under batch-level shuffling and its member is trained from its first step to its last, whatever
    schedule and branches the run had.
    """
    old = before.config.model_dump(mode="json")
    own = config.model_dump(mode="json", include={"name", "store", "tracking", "cluster"})
    datasets = [*old["corpus"]["datasets"], *(one.model_dump(mode="json") for one in config.corpus.datasets)]
    training = laid_over(old["training"], config.training)
    return {
        **old,
        **own,
        "corpus": {**old["corpus"], **config.corpus.changes(), "datasets": datasets},
        "bags": {**old["bags"], "schedule": {"kind": PLAIN}},
        "training": {**training, "branches": False},
        "evaluation": {**old["evaluation"], **config.evaluation.settings(), **tasks, "benchmarks": []},
    }


def laid_over(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another: sections are merged, all else is replaced."""
    return {
        **old,
        **{
            name: laid_over(old[name], value)
            if isinstance(value, Mapping) and isinstance(old.get(name), Mapping)
            else value
            for name, value in changes.items()
        },
    }


def _as_planned(before: Lineage) -> Artifact:
    """The model before, as far as a recipe needs it."""
    return Artifact("merge", before.merged, "", {}, {}, {}, "", {})


def plan_lines(plan: UpdatePlan, store: Store) -> list[str]:
    """The plan in words."""
    config, before = plan.config, plan.before
    cores = [artifact_of(store, *layer.core.split("/")) for layer in before.layers]
    core = sum(sum(one.figures["examples"].values()) for one in cores)
    refs = plan.to_merge(MemberRef(config.name, "", "", 1), _as_planned(before))
    weights = config.merge.weights
    names = ", ".join(ref.name for ref in refs)
    chain = " → ".join([*(layer.name for layer in before.layers), config.name])
    return [
        f"chain        {chain}",
        f"old data     {_counted(before.examples)}; of it {core:,} examples are replayed, drawn once and stored",
        f"new data     {', '.join(one.name for one in config.corpus.datasets)}",
        f"update       one member, trained from {plan.run.model.base} on the core and all new data: "
        f"{plan.run.training.epochs} pass(es), batch {plan.run.training.batch_size}",
        f"merge        {config.merge.method} of {names}, weights {weights if isinstance(weights, str) else [*weights]}",
        f"tasks        {'; '.join(f'{len(tasks)} {group}' for group, tasks in plan.groups.items()) or 'none'}",
        f"retraining   {'one member on everything, for comparison' if config.full_retraining else 'not wanted'}",
    ]


def _counted(examples: Mapping[str, int]) -> str:
    return f"{len(examples)} datasets with {sum(examples.values()):,} examples"


def names_of(groups: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """All (group, task) in order."""
    return [(group, task) for group, tasks in groups.items() for task in tasks]
