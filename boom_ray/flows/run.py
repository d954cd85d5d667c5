"""One BOOM run: corpus → bags → members → merged model → scores, every step in MLflow."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace

from boom_ray.bags.overlap import Overlap
from boom_ray.bags.sampling import BagRule
from boom_ray.bags.stage import CORE, BagJob, compare, core_rule, make_bags, rule_of
from boom_ray.config import EvaluationConfig, RunConfig
from boom_ray.corpus.ingest import TokenizerSpec, ingest
from boom_ray.errors import DataError, EvaluationError
from boom_ray.evaluation.benchmarks import check_tasks, evaluation_texts
from boom_ray.evaluation.domains import trained_domains
from boom_ray.evaluation.held_out import near_texts
from boom_ray.evaluation.hub_data import warn_of_data
from boom_ray.evaluation.progress import FolderScorer, chosen_tasks
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.inputs import BaseSource, check_sources, load_base, prompts, with_embedded
from boom_ray.flows.preparing import Ground, check_ground, prepare
from boom_ray.flows.record import Recorder
from boom_ray.flows.summary import check_link
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.hashing import stream_key
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.run import MODEL, merge
from boom_ray.model.losses.policy import policy_of
from boom_ray.store import Artifact, Store
from boom_ray.training.base import make_base
from boom_ray.training.job import MemberJob
from boom_ray.training.members import members_at_once, train_members

BASELINE = "baseline-100"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        corpus: the corpus artifact.
        bags: bag name to artifact; the core is among them.
        members: bag name to the artifact of the member trained on it.
        baseline: name of the member trained on 100 % of the data, None if there is none.
        merged: the merged model.
        evaluation: scores of base, members and merged model.
        overlap: what the members' bags have in common.
    """

    corpus: Artifact
    bags: dict[str, Artifact]
    members: dict[str, Artifact]
    baseline: str | None
    merged: Artifact
    evaluation: Evaluation
    overlap: Overlap


def run(config: RunConfig, started: float | None = None) -> int:
    """Run every stage whose artifact does not exist yet, and say where things are.

    Args:
        config: the run.
        started: when it began, by ``time.monotonic``; now by default.

    Returns:
        Exit code: 0, or 1 when an evaluation task failed.

    Raises:
        BoomError: what stopped it; finished artifacts stay in the store.
    """
    began = time.monotonic() if started is None else started
    _check(config)
    with workspace(config.store, config.tracking, config.cluster) as space, Recorder(space, config, began) as recorder:
        result = _stages(space, config, recorder)
        recorder.finish(result)
        if result.evaluation.failures:
            lines = [f"  {one.model} on {one.task}: {one.error}" for one in result.evaluation.failures]
            raise EvaluationError("\n".join(["Some tasks could not be evaluated; all else is done:", *lines]))
    return 0


def _check(config: RunConfig) -> None:
    """What configuration and file names can tell, before anything is started or written."""
    check_ground(config.merge, True, True, config.evaluation)
    resolve(config.merge, _as_planned(config))
    check_sources(config.corpus, config.evaluation)
    check_link(Store(store_root(config.store)), config.name)


def _check_rules(config: RunConfig, base: Artifact) -> None:
    """Members are saved as the base is, so its tensors' names are those that rules speak about."""
    with open_checkpoint(base.local() / MODEL, "base") as opened:
        keys = [key for key, info in opened.tensors.items() if info.dtype.is_floating_point]
    resolve(config.merge, _as_planned(config)).check(keys)


def _as_planned(config: RunConfig) -> list[MemberRef]:
    """The members as far as they are known before training: their names, and their sizes in proportion."""
    bags = config.bags.resolved()
    ratios = {bag.name: bag.ratio or 0.0 for bag in bags}
    shares = {bag.name: 1 - ratios[bag.complement_of] if bag.complement_of else ratios[bag.name] for bag in bags}
    return [MemberRef(name, "", "", round(share * 1_000_000)) for name, share in shares.items()]


def _stages(space: Workspace, config: RunConfig, recorder: Recorder) -> Result:
    members_at_once(config.training.resources, 1, config.cluster.autoscaling)
    source = load_base(config)
    resolved = with_embedded(space.store, config, space)
    check_tasks(resolved.evaluation)
    warn_of_data(resolved.evaluation.all_tasks)
    base = make_base(space.store, source.job(config), space)
    _check_rules(config, base)
    held_out = evaluation_texts(resolved.evaluation) if config.corpus.decontaminate else {}
    tokenizer = TokenizerSpec(source.tokenizer_json, config.model)
    near = near_texts(resolved.evaluation) if config.corpus.near_duplicates else None
    corpus = ingest(space.store, resolved.corpus, tokenizer, held_out, space, near)
    recorder.corpus(corpus)
    recorder.domains(trained_domains(resolved.evaluation, resolved.corpus.datasets, _sizes(corpus)))
    _check_negatives(config, corpus)
    jobs = bag_jobs(config, corpus)
    bags = make_bags(space.store, jobs, space)
    names = [job.name for job in jobs if job.name != CORE]
    baseline = next((job.name for job in jobs if is_everything(job.rule)), None)
    shared = compare({name: bags[name] for name in names}, _sizes(corpus))
    recorder.bags(bags, shared)
    _say_untrained(bags)
    member_jobs = [_member_job(config, source, base, corpus, name, bags[name]) for name in names]
    recorder.expect(member_jobs)
    scorer = _scorer(space.store, config, resolved.evaluation)
    members = train_members(space.store, member_jobs, config.cluster.autoscaling, space, scorer)
    recorder.members(members)
    inputs = MergeInputs(_to_merge(config, members), _to_merge_with(base))
    ground = Ground(config.model, resolved.evaluation, LossSettings.of(config.training), corpus)
    ready = prepare(space, inputs, config.merge, ground)
    merged = merge(space.store, ready.inputs, ready.config, space)
    recorder.merge(merged, ready)
    evaluation = evaluate(space.store, _models(config, base, members, merged), resolved.evaluation, space)
    return Result(corpus, bags, members, baseline, merged, evaluation, shared)


def bag_jobs(config: RunConfig, corpus: Artifact) -> list[BagJob]:
    """The bags of the members, the baseline's if none of them is everything, and the core."""
    rules = {bag.name: rule_of(bag, config.bags, config.seed) for bag in config.bags.resolved()}
    if config.baseline and not any(is_everything(rule) for rule in rules.values()):
        rules[BASELINE] = BagRule(1.0, config.seed)
    rules[CORE] = core_rule(config.bags, config.seed)
    mixture = config.bags.mixture
    return [
        BagJob(
            name=name,
            rule=rule,
            order_seed=stream_key("order", *asdict(rule).values()) >> 1,
            batch_size=config.training.batch_size,
            epochs=config.training.epochs,
            mixture=mixture.identity(),
            pool_seed=config.seed,
            corpus=corpus.fingerprint,
            parts=corpus.figures["parts"],
        )
        for name, rule in rules.items()
    ]


def is_everything(rule: BagRule) -> bool:
    """Whether a bag holds every example once: training on it is plain batch-level shuffling, the baseline."""
    return rule.ratio == 1 and rule.replacement == "none" and not rule.complement


def _say_untrained(bags: dict[str, Artifact]) -> None:
    """Name the datasets that are too small for a single step: nothing of them would be trained on."""
    for bag, artifact in bags.items():
        batch = artifact.spec["batch_size"]
        for dataset, count in artifact.figures["examples"].items():
            if count < batch and bag != CORE:
                log.warning(
                    "Bag %s holds %d examples of dataset %s, fewer than training.batch_size=%d: none is trained on.",
                    *(bag, count, dataset, batch),
                )


def _member_job(
    config: RunConfig, source: BaseSource, base: Artifact, corpus: Artifact, name: str, bag: Artifact
) -> MemberJob:
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
        prompts=prompts(config),
        max_tokens=source.max_tokens,
        longest=source.longest,
    )


def _check_negatives(config: RunConfig, corpus: Artifact) -> None:
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


def _scorer(store: Store, config: RunConfig, evaluation: EvaluationConfig) -> FolderScorer | None:
    """What evaluates members while they train; ``evaluation`` has every name made a path."""
    wanted = config.training.scores
    if wanted is None:
        return None
    resources = {"cpus_per_actor": wanted.cpus, "gpus_per_actor": wanted.gpus}
    return FolderScorer(
        store, evaluation.model_copy(update=resources), chosen_tasks(evaluation, wanted.tasks), config.model
    )


def _to_merge(config: RunConfig, members: dict[str, Artifact]) -> list[MemberRef]:
    """The members of the recipe, in the order of the configuration; a baseline trained for comparison is none."""
    return [
        MemberRef(name, artifact.place(MODEL), artifact.fingerprint, artifact.figures["examples"])
        for bag in config.bags.resolved()
        for name, artifact in [(bag.name, members[bag.name])]
    ]


def _to_merge_with(base: Artifact) -> MemberRef:
    return MemberRef("base", base.place(MODEL), base.figures["weights"], 0)


def _models(config: RunConfig, base: Artifact, members: dict[str, Artifact], merged: Artifact) -> list[ModelRef]:
    """What is evaluated; all models read texts of the same length, with the same pooling and templates."""
    models = {"base": base, **members, "merged": merged}
    return [
        replace(ModelRef.of(name, artifact.local() / MODEL, config.model), path=artifact.place(MODEL))
        for name, artifact in models.items()
    ]


def _sizes(corpus: Artifact) -> dict[str, int]:
    return {name: int(facts["rows"]) for name, facts in corpus.figures["datasets"].items()}
