"""Searches with a real Tune: one order whatever the timing, ends, failures, and processes that are used again."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time

import numpy as np
import pytest

from boom_ray.sweeps.search import search
from boom_ray.sweeps.trials import Answer, Ask
from tests.processes import descendants
from tests.sweeps.toy import answer, play, sample, settings

pytestmark = pytest.mark.ray


def _run(given, scorer=None, points=None):
    """All trials, after checking that they were heard in order, and why there were no more."""
    heard, reasons = [], []
    trials = search(given, sample, points, scorer or _score, heard.append, reasons.append)
    assert trials == heard
    assert [trial.number for trial in trials] == list(range(len(trials)))
    return trials, *reasons


def _score(asks):
    return [answer(ask) for ask in asks]


def _sleepy(seed):
    wait = random.Random(seed)

    def score(asks):
        time.sleep(wait.random() * 0.1)
        return _score(asks)

    return score


def _processes():
    """Trials' processes of this session's cluster."""
    return descendants("ray::ImplicitFunc")


def _asha(points, batch, rungs, eta):
    """How many rungs each point reaches, worked out without Tune: the rule of Li et al. (2020), batch after batch."""
    reached = [0] * len(points)
    known = [[] for _ in range(rungs)]
    for start in range(0, len(points), batch):
        alive = range(start, min(start + batch, len(points)))
        for rung in range(rungs):
            going = []
            for number in alive:
                found = _objectives(points[number], rung)["score"]
                reached[number] = rung + 1
                if not known[rung] or found >= np.percentile(known[rung], 100 * (1 - 1 / eta)):
                    going.append(number)
                known[rung].append(found)
            alive = going
    return reached


def _objectives(point, rung=0):
    return answer(Ask(0, point, rung)).objectives


def test_asha_keeps_its_order_whatever_the_timing(ray_cluster):
    given = settings(trials=10, rungs=[8, 16, None])
    first, reason = _run(given, _sleepy(1))
    assert reason == "trials"
    assert [len(trial.answers) for trial in first] == _asha([trial.point for trial in first], 3, 3, 3)
    assert [trial.status for trial in first] == [
        "finished" if len(trial.answers) == 3 else "stopped" for trial in first
    ]
    assert {len(trial.answers) for trial in first} == {1, 2, 3}
    assert _run(given, _sleepy(2))[0] == first


def test_failed_trials_are_told_and_more_trials_begin_alike(ray_cluster):
    """The points are those that the searcher suggests without Tune; processes are used again, but those of failures."""
    failing, processes = {1, 4}, []

    def score(asks):
        processes.append(_processes())
        return [Answer(error=f"no {ask.number}") if ask.number in failing else answer(ask) for ask in asks]

    short, _ = _run(settings(trials=6), score)
    long, _ = _run(settings(trials=14), score)
    assert [(trial.number, trial.point) for trial in long] == play(settings(trials=14), failing=failing)[0]
    assert long[:6] == short
    assert [trial.number for trial in long if trial.status == "failed"] == [1, 4]
    assert long[4].error == "no 4"
    assert set(processes[-1]) <= set(processes[-2])  # a failed one may still have been ending
    assert len(processes[-1]) == 3


def test_a_process_that_dies_is_replaced(ray_cluster):
    before, killed = _processes(), []  # of the search before, as far as they have not ended yet

    def score(asks):
        if asks[0].number == 3:
            killed.append(next(one for one in _processes() if one not in before))
            killed[0].kill()
        return _score(asks)

    trials, _ = _run(settings(), score)
    assert not killed[0].is_running()
    assert [(trial.number, trial.point) for trial in trials] == play(settings())[0]
    assert [trial.objectives for trial in trials] == [_objectives(trial.point) for trial in trials]


def test_a_front_and_a_list(ray_cluster):
    given = settings(searcher="nsga2", batch=2, objectives=[{"name": "score"}, {"name": "small"}])
    trials, _ = _run(given)
    assert [(trial.number, trial.point) for trial in trials] == play(given)[0]
    points = [trial.point for trial in trials[:4]]
    listed, reason = _run(settings(searcher="grid", batch=1), points=iter(points))
    assert [trial.point for trial in listed] == points
    assert reason == "points"


def _interrupt(asks):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(30)


def _refuse(asks):
    raise ValueError("no member can be trained")


@pytest.fixture
def ctrl_c():
    """Python's own handler of SIGINT, which is ignored where a script began the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("scorer", "kind"), [(_refuse, ValueError), (_interrupt, KeyboardInterrupt)])
def test_what_the_scorer_raises_ends_the_search(ray_cluster, ctrl_c, scorer, kind, monkeypatch, tmp_path):
    """Ctrl-C, which `boom_ray.runtime` makes of SIGTERM too, interrupts the scorer; nothing is left running."""
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("boom_ray.sweeps.search.JOIN_S", 120)
    with pytest.raises(kind):
        search(settings(), sample, None, scorer, lambda trial: None)
    assert "tune" not in [thread.name for thread in threading.enumerate()]
    assert signal.getsignal(signal.SIGINT) is handler
    assert not list(tmp_path.glob("boom_ray_sweep_*"))
    deadline = time.monotonic() + 60
    while _processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _processes()


def test_what_the_space_or_a_list_raises_ends_the_search(ray_cluster):
    def points():
        yield {"layers": {"0-5/out": 0.5}, "k": 1}
        raise ValueError("no more weights")

    with pytest.raises(ValueError, match="no more weights"):
        search(settings(searcher="learned"), sample, points(), _score, lambda trial: None)
