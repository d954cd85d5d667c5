"""What MLflow and the screen hear of a sweep while it goes on."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import SweepConfig
from boom_ray.events import Event
from boom_ray.flows.sweep.record import SweepRecorder, why_ended
from boom_ray.flows.workspace import Workspace
from boom_ray.store import Draft
from boom_ray.sweeps.trials import Answer, Trial
from boom_ray.training.job import KIND, VERSION, MemberJob
from tests.flows.recording import Runs, bare_workspace
from tests.sweeps.planted import answer, failed, sweep, trial
from tests.training.test_branches import make_job

METHODS = {"merge.method": {"choice": ["linear", "multislerp", "karcher"]}}
POINT = {"merge.method": "linear"}


class Screen:
    """Events as they come."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def recorder(root: Path, config: SweepConfig | None = None) -> tuple[SweepRecorder, Runs, Screen]:
    space, runs = bare_workspace(root)
    screen: Any = Screen()
    opened = Workspace(space.store, space.tracker, screen, {})
    return SweepRecorder(opened, config or sweep(METHODS)), runs, screen


def put(space: Workspace, job: MemberJob) -> None:
    def build(draft: Draft) -> None:
        draft.figures = {"steps": 7, "examples": 56, "seconds": 2.5}

    space.store.materialize(KIND, job.spec(), job.inputs(), build, VERSION)


def test_a_trial_s_error_is_a_tag_and_a_later_success_clears_it(tmp_path: Path) -> None:
    for one, error, status in ((failed(0, "no memory"), "no memory", "FAILED"), (trial(0, 0.5), "", "FINISHED")):
        told, runs, _ = recorder(tmp_path)
        run = runs.run("", "trial 0", tags={"error": "of an earlier run"})
        told.trial(one, {})
        assert (run.logged["tags"]["error"], run.status) == (error, status)


def test_all_trials_say_what_they_cost(tmp_path: Path) -> None:
    told, _, screen = recorder(tmp_path, sweep(METHODS, rungs=[8, None]))
    for one in (trial(0, 0.5, seconds=2.0), failed(1, "bad", answer(0.1, seconds=4.0))):
        told.trial(one, {})
    costs = [event.figures["cost_s"] for event in screen.events if event.unit == "all trials"]
    assert costs == [2.0, 6.5]


def test_a_trial_names_its_members_and_stored_ones_have_runs_too(tmp_path: Path) -> None:
    told, runs, _ = recorder(tmp_path)
    stored, fresh = (replace(make_job(), name=name, seed=seed) for name, seed in (("bag-80", 1), ("bag-100", 2)))
    put(told.space, stored)
    told.members([stored], True)
    told.members([fresh], False)
    assert list(told.space.curves) == ["bag-100"]
    put(told.space, fresh)
    told.members([fresh], True)
    for job in (stored, fresh):
        run = runs.found[f"member {job.name}"]
        assert (run.status, run.logged["tags"]["key"], run.logged["params"]["steps"]) == ("FINISHED", job.key, 7)
        assert run.logged["params"]["seed"] == job.seed
    told.trial(trial(0, 0.5), {job.name: job.key for job in (stored, fresh)})
    assert json.loads(runs.found["trial 0"].logged["tags"]["members"]) == {"bag-80": stored.key, "bag-100": fresh.key}
    told.trial(failed(1, "bad"), {})
    assert "members" not in runs.found["trial 1"].logged["tags"]


def test_why_a_search_ended_is_said_and_a_list_that_was_cut_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = "The search ended after 2 trials: sweep.trials=2 were made. 1 points of the space were not tried; a larger"
    told, runs, _ = recorder(tmp_path, sweep(METHODS, searcher="grid", trials=2))
    for number in range(2):
        told.trial(trial(number, 0.5), {})
    with caplog.at_level(logging.WARNING):
        told.ended("trials")
    assert told.ending.startswith(cut)
    assert runs.found["planted"].logged["tags"]["ended"] == told.ending
    assert [record.getMessage() for record in caplog.records] == [told.ending]


def test_a_list_that_was_cut_says_what_to_raise() -> None:
    told, is_cut = why_ended(sweep(METHODS, searcher="grid", hours=2), "hours", 2)
    assert is_cut
    assert told.endswith(
        "sweep.hours=2 are over. 1 points of the space were not tried; a larger sweep.hours goes on with them."
    )


@pytest.mark.parametrize(
    ("changes", "reason", "count", "words"),
    [
        ({"trials": 3}, "trials", 3, "sweep.trials=3 were made."),
        ({"searcher": "grid", "trials": 3}, "trials", 3, "sweep.trials=3 were made, all points of the space."),
        ({"searcher": "grid"}, "points", 3, "every point of the space was tried."),
        ({"hours": 1.5}, "hours", 8, "sweep.hours=1.5 are over."),
        ({"patience": 5}, "patience", 8, "the last 5 trials were no better than those before (sweep.patience)."),
    ],
)
def test_why(changes: dict[str, Any], reason: str, count: int, words: str) -> None:
    told = f"The search ended after {count} trials: {words}"
    assert why_ended(sweep(METHODS, **changes), reason, count) == (told, False)


def test_weights_that_a_merge_found_are_parameters_of_the_trial(tmp_path: Path) -> None:
    told, runs, _ = recorder(tmp_path)
    found = {"weights": [0.25, 0.75], "scale": 1.5}
    told.trial(Trial(0, POINT, (Answer({}, {"score": 0.5}, found=found),), "finished"), {})
    assert runs.found["trial 0"].logged["params"]["found"] == found
