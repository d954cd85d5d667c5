"""An update: new data and the core of the old → one member → merged into the current model → scores, with lineage."""

from __future__ import annotations

import sys
import time

from boom_ray.config import UpdateConfig
from boom_ray.evaluation.runner import evaluate
from boom_ray.flows.inputs import check_sources
from boom_ray.flows.lineage import find_lineage, keep
from boom_ray.flows.members import train
from boom_ray.flows.preparing import check_ground, check_scores
from boom_ray.flows.summary import check_link
from boom_ray.flows.update.plan import UpdatePlan, plan_lines, plan_update
from boom_ray.flows.update.record import UpdateRecorder
from boom_ray.flows.update.result import UpdateResult
from boom_ray.flows.update.stages import UPDATE, Material, draw, gather, models, next_lineage, ready_to_merge
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.merging.run import merge
from boom_ray.store import Store


def update(config: UpdateConfig, started: float | None = None) -> int:
    """Update a model, and say what that brought, took and cost; what exists is not made again.

    Args:
        config: what is updated, and with what.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code 0.

    Raises:
        BoomError: what stopped it, or after everything else is done the tasks that failed. The model that is updated,
            its members and its lineage stay as they are whatever happens.
    """
    began = time.monotonic() if started is None else started
    store = Store(store_root(config.store))
    before, told = find_lineage(store, config.current)
    plan = plan_update(config, before)
    _check(store, plan)
    if config.dry_run:
        lines = [told, *plan_lines(plan, store)]
        sys.stdout.write("\n".join([f"Plan of {config.name}; nothing was written.", *lines, ""]))
        return 0
    with workspace(config.store, config.tracking, config.cluster) as space:
        space.progress.say(told)
        recorder = UpdateRecorder(space, plan, began)
        result = _stages(space, plan, recorder)
        recorder.finish(result)
        check_scores(result.evaluation)
    return 0


def _check(store: Store, plan: UpdatePlan) -> None:
    """What configuration and file names can tell, before anything is started or written."""
    names = {one.name for one in plan.config.corpus.datasets}
    fresh = tuple(one for one in plan.run.corpus.datasets if one.name in names)
    check_ground(plan.config.merge, True, True, plan.run.evaluation)
    check_sources(plan.run.corpus.model_copy(update={"datasets": fresh}), plan.run.evaluation)
    check_link(store, plan.config.name)


def _stages(space: Workspace, plan: UpdatePlan, recorder: UpdateRecorder) -> UpdateResult:
    material = gather(space, plan)
    recorder.corpus(material)
    _search_old_data(space, plan, material, recorder)
    bags = draw(space, plan, material)
    recorder.bags(bags)
    recorder.expect(bags.planned.jobs)
    trained = train(space, material.foundation, [bags.planned])
    members = {name: trained[job.key] for name, job in bags.planned.jobs.items()}
    recorder.members(members)
    ready = ready_to_merge(space, plan, material, bags, members[UPDATE])
    merged = merge(space.store, ready.inputs, ready.config, space)
    recorder.merge(merged, ready)
    lineage = keep(space.store, next_lineage(plan, material, bags, members[UPDATE], merged))
    tasks = material.foundation.evaluation
    evaluation = evaluate(space.store, models(space, plan, material, members, merged), tasks, space)
    return UpdateResult(plan, material, bags, members, ready, merged, evaluation, lineage)


def _search_old_data(space: Workspace, plan: UpdatePlan, material: Material, recorder: UpdateRecorder) -> None:
    """Old data was cleaned of the texts of old tasks only; say what it holds of those of new ones."""
    if not plan.added:
        return
    from boom_ray.evaluation.contamination import contamination

    names = {task.name for task in plan.added}
    tasks = material.foundation.evaluation
    groups = ("in_domain", "out_of_domain", "selection")
    only = {group: tuple(one for one in getattr(tasks, group) if one.name in names) for group in groups}
    settings = plan.run.corpus.near_duplicates
    recorder.contamination(
        contamination(space.store, material.old, tasks.model_copy(update=only), settings, report=space)
    )
