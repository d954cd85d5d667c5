"""From the members of every arm to its model: their merge, the best of them, or the only one; then scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from boom_ray.config import RunConfig
from boom_ray.errors import BoomError, EvaluationError
from boom_ray.evaluation.report import means
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.members import Foundation
from boom_ray.flows.preparing import Ground, complete_ref, merged_ref, model_ref, prepare
from boom_ray.flows.study.members import PlannedArm, Trained
from boom_ray.flows.workspace import Workspace
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge
from boom_ray.studies.results import Failed
from boom_ray.training.base import make_base

BASE = "base"


@dataclass(frozen=True)
class Product:
    """The model of an arm and seed.

    Attributes:
        arm: what it was made from.
        model: the model, to be evaluated.
        facts: recipe or chosen member, for MLflow; JSON values.
    """

    arm: PlannedArm
    model: ModelRef
    facts: dict[str, Any] = field(default_factory=dict)


def make_products(
    space: Workspace, foundation: Foundation, arms: Sequence[PlannedArm], trained: Trained
) -> tuple[list[Product], list[Failed]]:
    """The models of all arms and seeds; what cannot be made is said and costs its arm and seed only."""
    products: list[Product] = []
    failures: list[Failed] = []
    selection = _selection(space, foundation, arms, trained)
    for arm in arms:
        try:
            products.append(_product(space, foundation, arm, trained, selection))
        except BoomError as error:
            failures.append(Failed(arm.run.arm.name, arm.run.seed, str(error)))
    return products, failures


def _product(
    space: Workspace, foundation: Foundation, arm: PlannedArm, trained: Trained, selection: Mapping[str, float]
) -> Product:
    inputs = _inputs(space, foundation, arm, trained)
    config = arm.run.config
    if arm.run.is_merged:
        ground = Ground(config.model, foundation.evaluation, LossSettings.of(config.training), foundation.corpus)
        ready = prepare(space, inputs, config.merge, ground)
        merged = merge(space.store, ready.inputs, ready.config, lambda event: space(replace(event, unit=arm.run.name)))
        facts = {"recipe": merged.spec, "merge": merged.key, **ready.facts}
        return Product(arm, model_ref(space, merged_ref(arm.run.name, merged), config.model), facts)
    unknown = [ref.name for ref in inputs.members if ref.fingerprint not in selection]
    if unknown and arm.run.arm.product == "best_member":
        raise EvaluationError(
            f"which of its members is best cannot be told: {', '.join(unknown)} could not be evaluated on all "
            f"selection tasks, see the errors of these tasks"
        )
    best = max(inputs.members, key=lambda ref: selection.get(ref.fingerprint, 0.0))  # the only one, if there is one
    scores = {ref.name: selection[ref.fingerprint] for ref in inputs.members if ref.fingerprint in selection}
    facts = {"member": best.name, **({"selection": scores} if scores else {})}
    return Product(arm, complete_ref(space, best, inputs, config.model), facts)


def _inputs(space: Workspace, foundation: Foundation, arm: PlannedArm, trained: Trained) -> MergeInputs:
    members = trained.of(arm)
    by_key = {arm.jobs[name].key: artifact for name, artifact in members.items()}
    base = make_base(space.store, foundation.source.job(arm.run.config))
    ref = MemberRef(BASE, base.place(MODEL), base.figures["weights"], 0)
    return MergeInputs(arm.planned.refs(by_key, list(members)), ref)


def _selection(
    space: Workspace, foundation: Foundation, arms: Sequence[PlannedArm], trained: Trained
) -> dict[str, float]:
    """Fingerprint of every member among which an arm chooses to its mean score on the selection tasks; 1 is perfect.

    Those that could not be evaluated on all of them are missing.
    """
    models: dict[str, ModelRef] = {}
    for arm in arms:
        if arm.run.arm.product != "best_member" or any(job.key not in trained.members for job in arm.jobs.values()):
            continue
        inputs = _inputs(space, foundation, arm, trained)
        for name, ref in zip(arm.run.bags, inputs.members, strict=True):
            named = MemberRef(arm.jobs[name].name, ref.path, ref.fingerprint, ref.examples)
            models.setdefault(ref.fingerprint, complete_ref(space, named, inputs, arm.run.config.model))
    if not models:
        return {}
    chosen_by = foundation.evaluation.selection
    tasks = foundation.evaluation.model_copy(update={"in_domain": chosen_by, "out_of_domain": (), "selection": ()})
    evaluation = evaluate(space.store, list(models.values()), tasks, space)
    failed = {one.model for one in evaluation.failures}
    averages = means([score for score in evaluation.scores if score.model not in failed])
    return {
        fingerprint: float(averages[ref.name]["in_domain"] or 0.0)
        for fingerprint, ref in models.items()
        if ref.name not in failed
    }


def score_products(
    space: Workspace, foundation: Foundation, config: RunConfig, products: Sequence[Product]
) -> Evaluation:
    """Scores of the untrained base and of all products on the reported tasks, all in one evaluation.

    Products that are the same model, e.g. the best member and batch-level shuffling, are evaluated once.

    Returns:
        Scores and failures under the names `BASE` and `ArmRun.name`.
    """
    models = [model_ref(space, foundation.base_ref, config.model)]
    models += [replace(one.model, name=one.arm.run.name) for one in products]
    same: dict[tuple[str, ...], list[ModelRef]] = {}
    for model in models:
        content = (model.fingerprint, model.prompts_digest, model.query_template, model.passage_template)
        same.setdefault(content, []).append(model)
    evaluation = evaluate(space.store, [own[0] for own in same.values()], foundation.evaluation, space)
    names = {own[0].name: [model.name for model in own] for own in same.values()}
    return Evaluation(
        tuple(replace(score, model=name) for score in evaluation.scores for name in names[score.model]),
        tuple(replace(one, model=name) for one in evaluation.failures for name in names[one.model]),
    )
