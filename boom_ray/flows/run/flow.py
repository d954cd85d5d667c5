"""One BOOM run: corpus → bags → members → merged model → scores, every step in MLflow."""

from __future__ import annotations

import time
from dataclasses import dataclass

from boom_ray.bags.overlap import Overlap
from boom_ray.bags.stage import compare
from boom_ray.config import RunConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.domains import trained_domains
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.inputs import check_sources
from boom_ray.flows.lineage import keep_run
from boom_ray.flows.members import lay_foundation, plan_members, train
from boom_ray.flows.preparing import Ground, artifact_ref, as_planned, check_ground, check_rules, prepare
from boom_ray.flows.run.record import Recorder
from boom_ray.flows.summary import check_link
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.recipe import resolve
from boom_ray.merging.run import merge
from boom_ray.store import Artifact, Store


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
    resolve(config.merge, as_planned(config))
    check_sources(config.corpus, config.evaluation)
    check_link(Store(store_root(config.store)), config.name)


def _stages(space: Workspace, config: RunConfig, recorder: Recorder) -> Result:
    foundation = lay_foundation(space, config, lambda base: check_rules(config, base))
    recorder.corpus(foundation.corpus)
    recorder.domains(trained_domains(foundation.evaluation, foundation.config.corpus.datasets, foundation.sizes))
    (planned,) = plan_members(space, foundation, [config], core=True)
    shared = compare({name: planned.bags[name] for name in planned.jobs}, foundation.sizes)
    recorder.bags(planned.bags, shared)
    recorder.expect(list(planned.jobs.values()))
    trained = train(space, foundation, [planned])
    members = {name: trained[job.key] for name, job in planned.jobs.items()}
    recorder.members(members)
    names = [bag.name for bag in config.bags.resolved()]  # a baseline trained for comparison is not merged
    inputs = MergeInputs(planned.refs(trained, names), foundation.base_ref)
    ground = Ground(config.model, foundation.evaluation, LossSettings.of(config.training), foundation.corpus)
    ready = prepare(space, inputs, config.merge, ground)
    merged = merge(space.store, ready.inputs, ready.config, space)
    recorder.merge(merged, ready)
    keep_run(space.store, config, foundation, planned, members, merged)
    models = _models(space, config, foundation.base, members, merged)
    evaluation = evaluate(space.store, models, foundation.evaluation, space)
    return Result(foundation.corpus, planned.bags, members, planned.everything, merged, evaluation, shared)


def _models(
    space: Workspace, config: RunConfig, base: Artifact, members: dict[str, Artifact], merged: Artifact
) -> list[ModelRef]:
    """What is evaluated; all models read texts of the same length, with the same pooling and templates."""
    models = {"base": base, **members, "merged": merged}
    return [artifact_ref(space, name, artifact, config.model) for name, artifact in models.items()]
