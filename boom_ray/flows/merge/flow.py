"""One merge of models that exist: found, checked, looked at, merged, scored, every step in MLflow."""

from __future__ import annotations

import sys
import time

from boom_ray.config import MergeJobConfig
from boom_ray.corpus.ingest import TokenizerSpec, ingest
from boom_ray.errors import MergeError
from boom_ray.evaluation.benchmarks import check_tasks, evaluation_texts
from boom_ray.evaluation.held_out import near_texts
from boom_ray.evaluation.hub_data import warn_of_data
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Evaluation
from boom_ray.flows.ingredients import find_models, with_fingerprints
from boom_ray.flows.inputs import check_sources, with_embedded
from boom_ray.flows.merge.dry_run import geometry_line, plan_lines
from boom_ray.flows.merge.record import MergeRecorder
from boom_ray.flows.preparing import (
    FROM_DATA,
    Ground,
    check_ground,
    check_scores,
    complete_ref,
    gathered,
    merged_ref,
    model_ref,
    prepare,
)
from boom_ray.flows.summary import check_link
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.merging.geometry.portrait import find_portrait, portrait_job
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.probe.sample import LossSettings
from boom_ray.merging.product.package import describe
from boom_ray.merging.reading.agreement import align_base
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.run import MergePlan, merge, plan_merge
from boom_ray.merging.stream import Opened
from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json
from boom_ray.store import Artifact, Store


def merge_models(config: MergeJobConfig, started: float | None = None) -> int:
    """Merge the configured models; with ``dry_run``, say how and end.

    Args:
        config: the models and the recipe.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code: 0, or 1 when an evaluation task failed.

    Raises:
        BoomError: what stopped it. All that can be checked from headers and configuration is checked first, before
            anything is started or written.
    """
    began = time.monotonic() if started is None else started
    check_ground(config.merge, config.base is not None, config.corpus is not None, config.evaluation)
    check_sources(config.corpus if gathered(config.merge) & FROM_DATA else None, config.evaluation)
    store = Store(store_root(config.store))
    check_link(store, config.name)
    found = find_models(store, config)
    lines = _plan(store, with_fingerprints(store, found, compute=False), config)
    if config.dry_run:
        sys.stdout.write("\n".join([f"Plan of {config.name}; nothing was written.", *lines, ""]))
        return 0
    with workspace(config.store, config.tracking, config.cluster) as space:
        check_scores(_stages(space, with_fingerprints(space.store, found, report=space), config, began))
    return 0


def _stages(space: Workspace, inputs: MergeInputs, config: MergeJobConfig, started: float) -> Evaluation:
    resolved = with_embedded(space.store, config, space)
    check_tasks(resolved.evaluation)
    warn_of_data(resolved.evaluation.all_tasks)
    recorder = MergeRecorder(space, config, inputs, started)
    ground = _ground(space, inputs, resolved)
    ready = prepare(space, inputs, config.merge, ground)
    recorder.geometry(ready)
    merged = merge(space.store, ready.inputs, ready.config, space)
    evaluation = _evaluate(space, inputs, merged, ground)
    recorder.finish(merged, ready, evaluation)
    return evaluation


def _plan(store: Store, inputs: MergeInputs, config: MergeJobConfig) -> list[str]:
    """Check the models against one another and the recipe; the plan in words."""
    job = MergeJob(store, inputs, config.merge)
    with job.opened(measured=False) as opened:
        if opened.base is not None:
            align_base(opened.base, opened.members[0])
        plan = plan_merge(job, opened)
        if config.evaluation.tasks and inputs.base is not None:  # of a plain folder a complete copy is scored
            with open_checkpoint(store.resolve(inputs.base.path), inputs.base.name) as base:
                describe(base).check_pooling(inputs.pooling)
        return _plan_lines(job, opened, plan)


def _plan_lines(job: MergeJob, opened: Opened, plan: MergePlan) -> list[str]:
    inputs = job.inputs
    refs = [*inputs.members, *([inputs.base] if inputs.base else [])]
    all_known = all(ref.fingerprint for ref in refs)
    drawing = portrait_job(job.store, inputs, job.config)
    with drawing.opened(check=job.config.geometry) as looked_at:
        if job.config.geometry and looked_at.base is not None and opened.base is None:
            _check_drawn_base(looked_at)
        nbytes = sum(info.nbytes for one in looked_at.models for info in one.tensors.values())
    drawn = all_known and find_portrait(drawing) is not None
    lines = plan_lines(job, opened, plan, gathered(job.config), all_known)
    return [*lines, geometry_line(job.config, nbytes, drawn)]


def _check_drawn_base(opened: Opened) -> None:
    """Check a base that only the geometry report reads."""
    assert opened.base is not None
    try:
        align_base(opened.base, opened.members[0])
    except MergeError as error:
        raise MergeError(f"{error} Here only the geometry report reads it; or set merge.geometry=false.") from None


def _ground(space: Workspace, inputs: MergeInputs, config: MergeJobConfig) -> Ground:
    """What the method may look at; the corpus is read only if it needs one."""
    model = config.model.full()
    ground = Ground(model, config.evaluation, LossSettings.of(config.loss.full()))
    if config.corpus is None or not gathered(config.merge) & FROM_DATA:
        return ground
    with MergeJob(space.store, inputs, config.merge).opened(check=False) as opened:
        folder = opened.members[0].package_folder
    tokenizer = TokenizerSpec(tokenizer_json(load_tokenizer(folder, model)), model)
    held_out = evaluation_texts(config.evaluation) if config.corpus.decontaminate else {}
    near = near_texts(config.evaluation) if config.corpus.near_duplicates else None
    corpus = ingest(space.store, config.corpus, tokenizer, held_out, space, near)
    return Ground(model, config.evaluation, ground.loss, corpus)


def _evaluate(space: Workspace, inputs: MergeInputs, merged: Artifact, ground: Ground) -> Evaluation:
    """Scores of the base, the members and the merged model, if there are tasks."""
    if not ground.evaluation.tasks:
        return Evaluation(())
    models = [*([inputs.base] if inputs.base else []), *inputs.members]
    refs = [complete_ref(space, ref, inputs, ground.model) for ref in models]
    refs.append(model_ref(space, merged_ref("merged", merged), ground.model))
    return evaluate(space.store, refs, ground.evaluation, space)
