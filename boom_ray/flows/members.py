"""From configurations to trained members: what they have in common is made once, and no member is trained twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from boom_ray.artifacts.plan import BAG
from boom_ray.bags.sampling import BagRule
from boom_ray.bags.schedules import Schedule, schedule_of
from boom_ray.bags.stage import CORE, BagJob, core_rule, make_bags, rule_of
from boom_ray.config import EvaluationConfig, RunConfig
from boom_ray.corpus.ingest import TokenizerSpec, ingest
from boom_ray.errors import ConfigError, DataError
from boom_ray.evaluation.benchmarks import check_tasks, evaluation_texts
from boom_ray.evaluation.held_out import near_texts
from boom_ray.evaluation.hub_data import warn_of_data
from boom_ray.evaluation.progress import FolderScorer, chosen_tasks
from boom_ray.flows.inputs import BaseSource, load_base, prompts, with_embedded
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import stream_key
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL
from boom_ray.model.losses.policy import policy_of
from boom_ray.store import Artifact, Store
from boom_ray.training.base import make_base
from boom_ray.training.job import MemberJob
from boom_ray.training.members import members_at_once, train_members

BASELINE = "baseline-100"
SHORT = 6  # digits of a key that tell members of one name apart
J = TypeVar("J", BagJob, MemberJob)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Foundation:
    """What members of one or many configurations are trained on and from.

    Attributes:
        config: the configuration with benchmarks as tasks and every ``embedded:NAME`` made a path.
        source: the base as it was found.
        base: the base's artifact.
        corpus: the corpus artifact.
    """

    config: RunConfig
    source: BaseSource
    base: Artifact
    corpus: Artifact

    @property
    def evaluation(self) -> EvaluationConfig:
        """The tasks, every path given."""
        return self.config.evaluation

    @property
    def sizes(self) -> dict[str, int]:
        """Dataset to its number of examples."""
        return {name: int(facts["rows"]) for name, facts in self.corpus.figures["datasets"].items()}

    @property
    def base_ref(self) -> MemberRef:
        """The base as what merges take differences from."""
        return MemberRef("base", self.base.place(MODEL), self.base.figures["weights"], 0)


@dataclass(frozen=True)
class Planned:
    """Members of one configuration before they are trained; bag name to each of them.

    Attributes:
        bags: the bags' artifacts; the core is among them where it was wanted.
        jobs: what will be trained, under names that are unique over all configurations planned together.
        everything: name of the bag that is plain batch-level shuffling, the baseline; None if there is none.
    """

    bags: dict[str, Artifact]
    jobs: dict[str, MemberJob]
    everything: str | None

    def refs(self, members: Mapping[str, Artifact], names: Sequence[str]) -> list[MemberRef]:
        """Members to merge; ``members`` as `train` gives them, ``names`` of bags in the order of the weights."""
        return [
            MemberRef(name, artifact.place(MODEL), artifact.fingerprint, artifact.figures["examples"])
            for name in names
            for artifact in [members[self.jobs[name].key]]
        ]


def lay_foundation(
    space: Workspace,
    config: RunConfig,
    check: Callable[[Artifact], None] = lambda base: None,
    check_sizes: Callable[[EvaluationConfig], None] = lambda evaluation: None,
) -> Foundation:
    """Base and corpus; everything that can be checked before data is read is checked first.

    Args:
        space: store, and who listens to progress.
        config: the run.
        check: looks at the base before any data is read; raises what is wrong.
        check_sizes: likewise at the tasks, every path given, after they were checked as they are.

    Raises:
        BoomError: see the stages.
    """
    if config.training.branches:
        raise ConfigError(
            "training.branches: bags of a run are trained on their own. Members that branch off one run are an arm of "
            "a study (trunk: true, see docs/studies.md)."
        )
    members_at_once(config.training.resources, 1, config.cluster.autoscaling)
    source = load_base(config)
    resolved = with_embedded(space.store, config, space)
    check_tasks(resolved.evaluation)
    check_sizes(resolved.evaluation)
    warn_of_data(resolved.evaluation.all_tasks)
    base = make_base(space.store, source.job(config), space)
    check(base)
    held_out = evaluation_texts(resolved.evaluation) if config.corpus.decontaminate else {}
    tokenizer = TokenizerSpec(source.tokenizer_json, config.model)
    near = near_texts(resolved.evaluation) if config.corpus.near_duplicates else None
    corpus = ingest(space.store, resolved.corpus, tokenizer, held_out, space, near)
    check_negatives(config, corpus)
    return Foundation(resolved, source, base, corpus)


def plan_members(
    space: Workspace, foundation: Foundation, configs: Sequence[RunConfig], core: bool = False
) -> list[Planned]:
    """Draw the bags of all configurations and describe their members.

    Args:
        space: store, and who listens to progress.
        foundation: of a configuration with the same corpus and model.
        configs: what to plan; those that want the same bag or member share it.
        core: also draw the core that updates replay.
    """
    wanted = [bag_jobs(config, foundation.corpus, core) for config in configs]
    drawn = make_bags(space.store, _distinct([job for jobs in wanted for job in jobs]), space)
    by_key = {artifact.key: artifact for artifact in drawn.values()}
    plans = [_plan(space, foundation, config, jobs, by_key) for config, jobs in zip(configs, wanted, strict=True)]
    shown = {job.key: job for job in _distinct(all_jobs(plans))}
    return [replace(plan, jobs={name: shown[job.key] for name, job in plan.jobs.items()}) for plan in plans]


def are_drawn(store: Store, foundation: Foundation, configs: Sequence[RunConfig]) -> bool:
    """Whether the store has all bags that `plan_members` would draw, the core apart."""
    jobs = [job for config in configs for job in bag_jobs(config, foundation.corpus, core=False)]
    return all(store.get(BAG, job.key) is not None for job in jobs)


def _plan(
    space: Workspace, foundation: Foundation, config: RunConfig, jobs: Sequence[BagJob], drawn: Mapping[str, Artifact]
) -> Planned:
    bags = {job.name: drawn[job.key] for job in jobs}
    say_untrained(bags)
    base = make_base(space.store, foundation.source.job(config))
    everything = next((job.name for job in jobs if is_baseline(job)), None)
    members = {name: member_job(config, foundation, base, name, bag) for name, bag in bags.items() if name != CORE}
    return Planned(bags, members, everything)


def all_jobs(planned: Sequence[Planned]) -> list[MemberJob]:
    """The members of several configurations, each once."""
    return list({job.key: job for one in planned for job in one.jobs.values()}.values())


def train(space: Workspace, foundation: Foundation, planned: Sequence[Planned]) -> dict[str, Artifact]:
    """Train what the store lacks; key of a `MemberJob` to its artifact.

    Raises:
        TrainingError: some members failed; names them, the reason and what is finished.
    """
    jobs = all_jobs(planned)
    config = foundation.config
    scorer = _scorer(space.store, config)
    members = train_members(space.store, jobs, config.cluster.autoscaling, space, scorer)
    return {job.key: members[job.name] for job in jobs}


def bag_jobs(config: RunConfig, corpus: Artifact, core: bool = True) -> list[BagJob]:
    """The bags of the members, the baseline's if it is wanted and none of them is it, and the core.

    Baseline and core do not follow ``bags.schedule``: the one is what schedules are compared with, of the other only
    the examples matter.
    """
    rules = {bag.name: rule_of(bag, config.bags, config.seed) for bag in config.bags.resolved()}
    schedules = {name: _schedule(config, rule) for name, rule in rules.items()}
    has_baseline = config.bags.schedule.is_plain and any(is_everything(rule) for rule in rules.values())
    if config.baseline and not has_baseline:
        rules[BASELINE] = BagRule(1.0, config.seed)
    if core:
        rules[CORE] = core_rule(config.bags, config.seed)
    mixture = config.bags.mixture
    return [
        BagJob(
            name=name,
            rule=rule,
            order_seed=stream_key("order", *rule.draw_identity().values()) >> 1,
            batch_size=config.training.batch_size,
            epochs=config.training.epochs,
            mixture=mixture.identity(),
            pool_seed=config.seed,
            corpus=corpus.fingerprint,
            parts=corpus.figures["parts"],
            schedule=schedules.get(name, Schedule()),
        )
        for name, rule in rules.items()
    ]


def _schedule(config: RunConfig, rule: BagRule) -> Schedule:
    datasets = [one for one in config.corpus.datasets if rule.draws_from(one.name)]
    return schedule_of(config.bags.schedule, datasets, config.training.epochs)


def is_everything(rule: BagRule) -> bool:
    """Whether a bag holds every example once."""
    return rule.ratio == 1 and rule.replacement == "none" and not rule.complement and not rule.datasets


def is_baseline(job: BagJob) -> bool:
    """Whether a member of the bag is the baseline: plain batch-level shuffling of every example."""
    return job.name != CORE and job.schedule.is_plain and is_everything(job.rule)


def _distinct(jobs: Sequence[J]) -> list[J]:
    """The jobs without those of the same key, each with a name of its own; a name used once stays as it is."""
    by_key = {job.key: job for job in jobs}
    names = [job.name for job in by_key.values()]
    return [
        job if names.count(job.name) == 1 else replace(job, name=f"{job.name}~{job.key[:SHORT]}")
        for job in by_key.values()
    ]


def say_untrained(bags: Mapping[str, Artifact]) -> None:
    """Name the datasets of which a bag has examples and no step: nothing of them would be trained on."""
    for bag, artifact in bags.items():
        batch, left_over = artifact.spec["batch_size"], artifact.figures["left_over"]
        for dataset, count in artifact.figures["examples"].items():
            if left_over[dataset] < count or bag == CORE:
                continue
            small = f"fewer than training.batch_size={batch}" if count < batch else "and bags.schedule none of them"
            log.warning(
                "Bag %s holds %d examples of dataset %s, %s: none is trained on.", *(bag, count, dataset, small)
            )


def member_job(
    config: RunConfig,
    foundation: Foundation,
    base: Artifact,
    name: str,
    bag: Artifact,
    stored: Mapping[str, str] | None = None,
) -> MemberJob:
    """What trains a member.

    Args:
        config: how it is trained.
        foundation: corpus, and how long its texts may be.
        base: where it begins.
        name: for messages.
        bag: what it is trained on.
        stored: prompts that the saved model has; None: those of the configuration.
    """
    corpus, source = foundation.corpus, foundation.source
    return MemberJob(
        name=name,
        bag=bag.fingerprint,
        bag_key=bag.key,
        parts=corpus.figures["parts"],
        policies={one.name: policy_of(one, config.training.temperature) for one in config.corpus.datasets},
        corpus=corpus.fingerprint,
        base=base.fingerprint,
        base_place=base.place(MODEL),
        model=config.model,
        training=config.training,
        seed=config.seed,
        prompts=prompts(config) if stored is None else dict(stored),
        max_tokens=source.max_tokens,
        longest=source.longest,
    )


def check_negatives(config: RunConfig, corpus: Artifact) -> None:
    """Datasets that have only their own negatives must have some.

    Raises:
        DataError: one has none; its loss would be 0 in every step.
    """
    for dataset in config.corpus.datasets:
        texts = corpus.figures["datasets"][dataset.name]["texts"]
        if dataset.loss.kind == "infonce" and not dataset.uses_in_batch and not texts["negatives"]:
            raise DataError(
                f"Dataset {dataset.name} has no negatives, and in_batch=false takes none from other examples: there is "
                f"nothing to learn from. Give it negatives, or set in_batch: true."
            )


def _scorer(store: Store, config: RunConfig) -> FolderScorer | None:
    """What evaluates members while they train."""
    wanted = config.training.scores
    if wanted is None:
        return None
    resources = {"cpus_per_actor": wanted.cpus, "gpus_per_actor": wanted.gpus}
    evaluation = config.evaluation
    return FolderScorer(
        store, evaluation.model_copy(update=resources), chosen_tasks(evaluation, wanted.tasks), config.model
    )
