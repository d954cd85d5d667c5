"""A search with Ray Tune: optuna or a list of points, ASHA over rungs, one order of events whatever the timing."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from boom_ray.runtime import cause  # isort: skip  (sets Ray's environment before Ray is imported)

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from boom_ray.config import SearchConfig
from boom_ray.sweeps.mailbox import Closed, Letter, Mailbox, run_trial
from boom_ray.sweeps.ordered import OrderedSearcher
from boom_ray.sweeps.rounds import Rounds, Scorer
from boom_ray.sweeps.rungs import make_scheduler
from boom_ray.sweeps.searchers import Sample, make_searcher
from boom_ray.sweeps.trials import Answer, Point, Trial

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no csv, json and tensorboard files that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # a search is resumed by repeating it
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # what failed and why is in our trials
}
JOIN_S = 15.0
"""How long Tune may take to end its processes; where Ray itself has died it takes for ever."""
SHARE = 1e-4
"""What a trial takes of the driver's machine, which is there once: it waits only and needs no CPU."""
log = logging.getLogger(__name__)


def search(
    settings: SearchConfig,
    sample: Sample,
    points: Iterator[Point] | None,
    scorer: Scorer,
    listen: Callable[[Trial], None],
    ended: Callable[[str], None] = log.info,
) -> list[Trial]:
    """Search until the settings' limits.

    The same settings, space and scores give the same trials, whatever the timing. A search that is repeated with more
    trials begins with the same ones. Tune runs in a thread, and the scorer in the caller's: Ctrl-C and SIGTERM
    interrupt what computes.

    Args:
        settings: searcher, batch, rungs, limits; ``hours`` count from this call.
        sample: a point of the space, value by value.
        points: for searchers that go through a list (grid, learned): the points, one after another.
        scorer: answers what the living trials of a batch ask; called once for each rung that a batch reaches.
        listen: hears every trial that has ended, by number.
        ended: hears why there is no further trial: ``trials``, ``hours``, ``patience`` or ``points``.

    Returns:
        All trials by number.

    Raises:
        EvaluationError: a trial's process died again and again.
        BaseException: whatever the scorer, the space, the points or a listener raise. Tune's processes have ended then.
    """
    here = ray.get_runtime_context().get_node_id()
    mailbox = _mailbox(here, settings.batch)
    searcher = OrderedSearcher(make_searcher(settings, sample, points), settings, mailbox.post.remote)

    def answer(number: int, found: Answer) -> None:
        if found.error:
            searcher.refuse(number)
        mailbox.answer.remote(number, found)

    rounds = Rounds(lambda: ray.get(mailbox.collect.remote()), answer, scorer, listen)
    with tempfile.TemporaryDirectory(prefix="boom_ray_sweep_", ignore_cleanup_errors=True) as folder:
        tuning = Tuning(_tuner(settings, searcher, mailbox, here, folder), mailbox.post.remote)
        tuning.start()
        try:
            trials = rounds.run()
        finally:
            searcher.stop()
            mailbox.close.remote()
            tuning.join(JOIN_S)
            ray.kill(mailbox)
    if fault := searcher.fault or tuning.fault:
        raise fault
    ended(searcher.ended)
    return trials


class Tuning(threading.Thread):
    """The thread that runs Tune, which installs no signal handlers there."""

    def __init__(self, tuner: tune.Tuner, post: Callable[[Letter], Any]) -> None:
        """Ready to start; ``post`` hears of the end."""
        super().__init__(name="tune", daemon=True)
        self._tuner, self._post = tuner, post
        self.fault: BaseException | None = None

    def run(self) -> None:
        """Run Tune to its end."""
        counts = logging.getLogger("ray.tune.tune")  # says at the end, as an error, which trials failed
        level = counts.level
        counts.setLevel(logging.CRITICAL)
        try:
            self._tuner.fit()
        except Exception as error:
            self.fault = cause(error)
        finally:
            counts.setLevel(level)
            self._post(Closed())


def _mailbox(node: str, batch: int) -> Any:
    """The mailbox on the driver's machine, so that no other node's death may take it; every trial may wait in it."""
    place = NodeAffinitySchedulingStrategy(node, soft=True)
    return ray.remote(Mailbox).options(num_cpus=0, max_concurrency=batch + 8, scheduling_strategy=place).remote()


def _tuner(settings: SearchConfig, searcher: OrderedSearcher, mailbox: Any, node: str, folder: str) -> tune.Tuner:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    trainable = tune.with_parameters(
        run_trial, mailbox=mailbox, rungs=len(settings.rungs), reduction=settings.reduction
    )
    return tune.Tuner(
        tune.with_resources(trainable, {_address(node): SHARE}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=make_scheduler(settings),
            num_samples=-1,  # the searcher says when it is enough
            max_concurrent_trials=settings.batch,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=folder, verbose=0),
    )


def _address(node: str) -> str:
    """The resource that this node alone has; trials that ask for it are placed here. Tune takes no empty request."""
    resources = next(one["Resources"] for one in ray.nodes() if one["NodeID"] == node)
    return next(str(name) for name in resources if name.startswith("node:") and not name.startswith("node:__"))
