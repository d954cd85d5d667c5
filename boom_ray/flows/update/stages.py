"""The stages of an update: new data in, core and new data as one bag, one member, one merge, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from boom_ray.bags.sampling import BagRule
from boom_ray.bags.schedules.batches import part, passes
from boom_ray.bags.stage import core_rule
from boom_ray.bags.union import Holding, ShareJob, UnionJob, make_shares, make_unions
from boom_ray.config.update import FULL
from boom_ray.corpus.ingest import TokenizerSpec, ingest
from boom_ray.corpus.union import union
from boom_ray.errors import DataError
from boom_ray.evaluation.benchmarks import check_tasks, evaluation_texts
from boom_ray.evaluation.held_out import near_texts
from boom_ray.evaluation.hub_data import warn_of_data
from boom_ray.evaluation.scores import ModelRef
from boom_ray.flows.inputs import BaseSource, with_embedded
from boom_ray.flows.lineage import Ancestor, Layer, Lineage
from boom_ray.flows.members import Foundation, Planned, check_negatives, member_job, say_untrained
from boom_ray.flows.preparing import Ground, Prepared, artifact_ref, prepare
from boom_ray.flows.update.plan import UpdatePlan, artifact_of
from boom_ray.flows.update.prompts import extended, with_prompts
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import stream_key
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.run import MODEL
from boom_ray.model.folder import max_sequence_length, prompts_digest, stored_prompts
from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json
from boom_ray.store import Artifact
from boom_ray.training.members import members_at_once

UPDATE = "update"


@dataclass(frozen=True)
class Material:
    """What an update is made from.

    Attributes:
        foundation: base, and the corpus of all datasets, old and new; its configuration has every path.
        before: the merged model that is updated.
        old: the corpus of all old datasets.
        fresh: the corpus of the new datasets.
        prompts: what the updated model stores.
    """

    foundation: Foundation
    before: Artifact
    old: Artifact
    fresh: Artifact
    prompts: dict[str, str]


@dataclass(frozen=True)
class Bags:
    """What an update draws.

    Attributes:
        cores: layer to what is replayed of it.
        new: all new examples that no older corpus holds.
        core: of them, what later updates replay.
        whole: layer to all that a run on it would train on; the last one is ``new``.
        planned: the update member's bag and job, and those of full retraining if it is wanted.
    """

    cores: dict[str, Artifact]
    new: Artifact
    core: Artifact
    whole: dict[str, Artifact]
    planned: Planned


def gather(space: Workspace, plan: UpdatePlan) -> Material:
    """Find what the lineage names, and ingest the new datasets; old ones are not read again.

    Raises:
        BoomError: see the stages.
    """
    store, run, before = space.store, plan.run, plan.before
    members_at_once(run.training.resources, 1, run.cluster.autoscaling)
    resolved = with_embedded(store, run, space)
    check_tasks(resolved.evaluation)
    warn_of_data(resolved.evaluation.all_tasks)
    base, merged = artifact_of(store, "base", before.base), artifact_of(store, "merge", before.merged)
    source = _source(plan, base)
    _check_rules(plan, merged)
    names = {one.name for one in plan.config.corpus.datasets}
    only = tuple(one for one in resolved.corpus.datasets if one.name in names)
    corpus = resolved.corpus.model_copy(update={"datasets": only})
    held_out = evaluation_texts(resolved.evaluation) if corpus.decontaminate else {}
    near = near_texts(resolved.evaluation) if corpus.near_duplicates else None
    fresh = ingest(store, corpus, TokenizerSpec(source.tokenizer_json, run.model), held_out, space, near)
    check_negatives(resolved.model_copy(update={"corpus": corpus}), fresh)
    old = artifact_of(store, "corpus", before.corpus)
    foundation = Foundation(resolved, source, base, union(store, [old, fresh]))
    prompts = extended(stored_prompts(merged.local() / MODEL), run.model, plan.config.corpus.datasets)
    return Material(foundation, merged, old, fresh, prompts)


def _source(plan: UpdatePlan, base: Artifact) -> BaseSource:
    """The base as the members before were trained from it: no other copy of it is needed."""
    folder, corpus = base.local() / MODEL, plan.run.corpus
    longest = max(corpus.max_query_tokens, corpus.max_passage_tokens)
    tokenizer = tokenizer_json(load_tokenizer(folder, plan.run.model))
    found = (base.figures["weights"], prompts_digest(folder), tokenizer, max_sequence_length(folder) or longest)
    return BaseSource(folder, *found, longest)


def _check_rules(plan: UpdatePlan, merged: Artifact) -> None:
    """The update member's tensors have the names of the current model's."""
    with open_checkpoint(merged.local() / MODEL, plan.before.name) as opened:
        keys = [key for key, info in opened.tensors.items() if info.dtype.is_floating_point]
    resolve(plan.config.merge, plan.to_merge(MemberRef(plan.config.name, "", "", 1), merged)).check(keys)


def draw(space: Workspace, plan: UpdatePlan, material: Material) -> Bags:
    """Draw the shares of old and new data, and plan the members.

    Raises:
        DataError: nothing is new, or there is no batch of anything.
    """
    store, before, run = space.store, plan.before, plan.run
    corpora = {layer.name: artifact_of(store, "corpus", layer.corpus) for layer in before.layers}
    corpora[plan.config.name] = material.fresh
    jobs = [_share(plan, name, corpora, BagRule(1.0, run.seed)) for name in corpora]
    jobs.append(replace(_share(plan, plan.config.name, corpora, core_rule(run.bags, run.seed)), name="core of the new"))
    *shares, core = make_shares(store, jobs, space)
    whole = dict(zip(corpora, shares, strict=True))
    new = whole[plan.config.name]
    if not any(new.figures["examples"].values()):
        raise DataError(
            f"Nothing of {', '.join(new.figures['datasets'])} is new: {before.name} was trained on all of its examples."
        )
    cores = {layer.name: artifact_of(store, *layer.core.split("/")) for layer in before.layers}
    wanted = {UPDATE: {**cores, plan.config.name: new}} | ({FULL: whole} if plan.config.full_retraining else {})
    unions = [_union(plan, material, name, bags) for name, bags in wanted.items()]
    bags = dict(zip(wanted, make_unions(store, unions, space), strict=True))
    say_untrained(bags)
    foundation = material.foundation
    members = {
        name: member_job(run, foundation, foundation.base, name, bag, material.prompts) for name, bag in bags.items()
    }
    return Bags(cores, new, core, whole, Planned(bags, members, FULL if FULL in bags else None))


def _share(plan: UpdatePlan, name: str, corpora: dict[str, Artifact], rule: BagRule) -> ShareJob:
    """A share of one layer; the run's caps and temperature are about the run's own data."""
    order = list(corpora)
    older = tuple(Holding.of(corpora[one]) for one in order[: order.index(name)])
    job = ShareJob(f"all of {name}", rule, Holding.of(corpora[name]), older)
    return job if older else replace(job, mixture=plan.run.bags.mixture.identity(), pool_seed=plan.run.seed)


def _union(plan: UpdatePlan, material: Material, name: str, bags: dict[str, Artifact]) -> UnionJob:
    training, seed = plan.run.training, stream_key("order", "union", plan.run.seed) >> 1
    held = Holding.of(material.foundation.corpus)
    return UnionJob(f"bag of {name}", bags, held, seed, training.batch_size, training.epochs)


def ready_to_merge(space: Workspace, plan: UpdatePlan, material: Material, bags: Bags, update: Artifact) -> Prepared:
    """The models that are merged, all with the prompts of the result, and what their method looks at.

    Raises:
        BoomError: see `boom_ray.flows.preparing.prepare`.
    """
    foundation, config = material.foundation, plan.config.merge
    refs = plan.to_merge(plan.member(update, bags.planned.bags[UPDATE]), material.before)
    members = [with_prompts(space.store, ref, material.prompts) for ref in refs]
    loss = LossSettings.of(plan.run.training)
    ground = Ground(plan.run.model, foundation.evaluation, loss, foundation.corpus)
    return prepare(space, MergeInputs(members, foundation.base_ref), config, ground)


def models(
    space: Workspace, plan: UpdatePlan, material: Material, members: dict[str, Artifact], merged: Artifact
) -> list[ModelRef]:
    """What is evaluated, read as the run's own models are."""
    found = {"before": material.before, UPDATE: members[UPDATE], "after": merged}
    found |= {name: member for name, member in members.items() if name == FULL}
    return [artifact_ref(space, name, one, plan.run.model) for name, one in found.items()]


def next_lineage(plan: UpdatePlan, material: Material, bags: Bags, update: Artifact, merged: Artifact) -> Lineage:
    """What the next update begins with."""
    before, fresh = plan.before, material.fresh
    examples: dict[str, int] = bags.new.figures["examples"]
    layer = Layer(plan.config.name, fresh.key, f"{bags.core.kind}/{bags.core.key}", examples)
    return Lineage(
        name=plan.config.name,
        config=plan.run,
        base=before.base,
        corpus=material.foundation.corpus.key,
        layers=(*before.layers, layer),
        members=(*before.members, Ancestor.of(plan.config.name, update, bags.planned.bags[UPDATE])),
        merged=merged.key,
        recipe=merged.spec,
        ancestors=(*before.ancestors, before.key),
    )


def seen_by_full_retraining(plan: UpdatePlan, whole: Sequence[Artifact]) -> int:
    """Examples that one member on everything sees, whether it is trained or not: full batches only."""
    training = plan.run.training
    batches = [count // training.batch_size for share in whole for count in share.figures["examples"].values()]
    steps = sum(part(count, share) for count in batches for _, share in passes(training.epochs))
    return training.batch_size * min(steps, training.max_steps or steps)
