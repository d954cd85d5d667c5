"""A study: several ways of making a model, over seeds; members that several need are trained once; one report."""

from __future__ import annotations

import sys
import time

from boom_ray.config import RunConfig, StudyConfig
from boom_ray.errors import TrainingError
from boom_ray.evaluation.scores import Evaluation
from boom_ray.flows.inputs import check_sources
from boom_ray.flows.members import lay_foundation
from boom_ray.flows.outlook import full_run
from boom_ray.flows.preparing import check_scores
from boom_ray.flows.study.finish import REPORT, collect, keep_report, say_report
from boom_ray.flows.study.members import Accounts, plan_arms, train_arms
from boom_ray.flows.study.outlook import outlook_lines
from boom_ray.flows.study.plan import arm_runs, check_arms, check_tensors
from boom_ray.flows.study.products import make_products, score_products
from boom_ray.flows.study.record import StudyRecorder
from boom_ray.flows.study.synergy import find_clusters
from boom_ray.flows.workspace import Workspace, workspace
from boom_ray.studies.results import StudyResult


def study(config: StudyConfig, started: float | None = None) -> int:
    """Make every arm with every seed, evaluate and compare them; what exists is not made again.

    Args:
        config: a run, and the arms, seeds and claims of the study.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code 0.

    Raises:
        BoomError: what stopped it, or after the report is written the arms and tasks that failed.
    """
    began = time.monotonic() if started is None else started
    check_arms(config)
    check_sources(config.corpus, config.evaluation)
    if config.dry_run:
        sys.stdout.write("\n".join([f"Plan of {config.name}; nothing was written.", *outlook_lines(config), ""]))
        return 0
    with workspace(config.store, config.tracking, config.cluster) as space:
        result, evaluation = _stages(space, config, StudyRecorder(space, config), began)
        _complain(result, evaluation)
    return 0


def _stages(
    space: Workspace, config: StudyConfig, recorder: StudyRecorder, began: float
) -> tuple[StudyResult, Evaluation]:
    run = RunConfig.model_validate(config.model_dump(include=set(RunConfig.model_fields)))
    foundation = lay_foundation(space, run, lambda base: check_tensors(config, base))
    searches = find_clusters(space, foundation, config)
    clusterings = {arm: one.clustering for arm, one in searches.items()}
    recorder.clusters(clusterings)
    runs = arm_runs(config, {arm: one.clusters for arm, one in clusterings.items()})
    arms = plan_arms(space, foundation, runs)
    trained = train_arms(space, foundation, arms, recorder.members)
    products, failures = make_products(space, foundation, arms, trained)
    evaluation = score_products(space, foundation, run, products)
    accounts = Accounts(space.store, full_run(run, foundation.sizes), arms, trained, searches)
    result = collect(space, config, products, evaluation, accounts, failures)
    recorder.products(products, result)
    report = keep_report(space, config, result, clusterings)
    text = (report.local() / REPORT).read_text(encoding="utf-8")
    recorder.report(report, text, not (result.failures or evaluation.failures))
    say_report(space, report, result, began)
    return result, evaluation


def _complain(result: StudyResult, evaluation: Evaluation) -> None:
    """Say what failed, after everything else is done.

    Raises:
        TrainingError: some arms have no model.
        EvaluationError: some tasks could not be evaluated.
    """
    check_scores(evaluation)
    if result.failures:
        lines = [f"  {one.arm}, seed {one.seed}: {one.error}" for one in result.failures]
        raise TrainingError("\n".join(["Some arms could not be made; the report is about the others:", *lines]))
