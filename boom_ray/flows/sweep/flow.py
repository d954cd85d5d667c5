"""A sweep: many recipes tried, every member trained once, the best one merged and compared with what it should beat."""

from __future__ import annotations

import sys
import time

from boom_ray.config import RunConfig, SweepConfig
from boom_ray.errors import ConfigError
from boom_ray.flows.inputs import check_sources
from boom_ray.flows.members import lay_foundation
from boom_ray.flows.preparing import check_rules
from boom_ray.flows.summary import check_link
from boom_ray.flows.sweep.finish import finish
from boom_ray.flows.sweep.plan import plan_lines
from boom_ray.flows.sweep.record import SEARCH, SweepRecorder, search_key
from boom_ray.flows.sweep.report import find
from boom_ray.flows.sweep.scoring import TrialScorer
from boom_ray.flows.workspace import store_root, workspace
from boom_ray.store import Store, artifact_key
from boom_ray.sweeps.check import check_rungs, check_space, example
from boom_ray.sweeps.failures import Failures
from boom_ray.sweeps.reach import points
from boom_ray.sweeps.search import search
from boom_ray.sweeps.space import sample
from boom_ray.sweeps.trials import Trial


def sweep(config: SweepConfig, started: float | None = None) -> int:
    """Search, choose, merge, evaluate, compare; what exists is not made again, so an earlier search goes on.

    Args:
        config: a run, and what of it is searched.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code 0.

    Raises:
        BoomError: what stopped it; members, trials and scores stay in the store.
    """
    began = time.monotonic() if started is None else started
    check_space(config)
    check_sources(config.corpus, config.evaluation)
    store = Store(store_root(config.store))
    check_link(store, config.name)
    if config.dry_run:
        lines = plan_lines(config, store)
        sys.stdout.write("\n".join([f"Plan of {config.name}; nothing was written.", *lines, ""]))
        return 0
    if config.resume:
        _check_begun(store, config)
    with workspace(config.store, config.tracking, config.cluster) as space:
        foundation = lay_foundation(
            space,
            _run_of(config),
            lambda base: check_rules(example(config), base),
            lambda evaluation: check_rungs(config.sweep.rungs, evaluation),
        )
        recorder = SweepRecorder(space, config)
        failures = Failures(space.store, recorder.key)
        if config.sweep.retry_failed:
            failures.forget()
        scorer = TrialScorer(space, foundation, config, recorder.members, failures)

        def listen(trial: Trial) -> None:
            failures.keep(trial)
            recorder.trial(trial, scorer.member_keys(trial.point))

        try:
            trials = search(
                *(config.sweep, lambda suggest: sample(config, suggest), points(config), scorer, listen),
                recorder.ended,
            )
            found = find(space, foundation, config, trials, scorer)
        finally:
            scorer.close()
        finish(space, config, recorder, foundation.corpus, trials, found, began)
    return 0


def _run_of(config: SweepConfig) -> RunConfig:
    """The run without the search."""
    return RunConfig.model_validate(config.model_dump(include=set(RunConfig.model_fields)))


def _check_begun(store: Store, config: SweepConfig) -> None:
    """What ``--resume`` promises.

    Raises:
        ConfigError: this search was never begun in this store.
    """
    if store.get(SEARCH, artifact_key(SEARCH, {"search": search_key(config)}, {})) is None:
        raise ConfigError(
            f"There is nothing to resume: {store.root} has no earlier part of this search. The space, searcher, seed, "
            f"batch, rungs, objectives and the run itself must be the same; trials, hours and patience may differ. "
            f"Without --resume a new search begins."
        )
