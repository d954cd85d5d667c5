"""What a BOOM run leaves in MLflow when it stops on the way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.config import RunConfig
from boom_ray.errors import MergeError, StoreError, TrainingError
from boom_ray.flows.run.record import Recorder
from boom_ray.store import Artifact, Store
from tests.flows.recording import Runs, bare_workspace

CONFIG = RunConfig.model_validate(
    {"name": "job", "corpus": {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "retrieval"}]}}
)


def trained(store: Store, name: str) -> tuple[Any, Artifact]:
    """The job of a member, and its artifact."""

    def build(draft: Any) -> None:
        draft.figures = {"curve": [[2, 1.5], [4, 0.5]], "steps": 4, "examples": 32, "seconds": 1.0}

    made = store.materialize("member", {"name": name}, {}, build)
    return SimpleNamespace(name=name, key=made.key, bag_key="b", spec=lambda: {"training": {"epochs": 1}}), made


def untrained(name: str) -> Any:
    return SimpleNamespace(name=name, key="0" * 32, bag_key="b", spec=lambda: {"training": {"epochs": 1}})


@pytest.fixture
def stopped(tmp_path: Path):
    """Runs of a job that stops with an error; ``work`` does what came before."""

    def stop(work: Any, error: Exception) -> Runs:
        space, runs = bare_workspace(tmp_path / "store")
        with pytest.raises(type(error)), Recorder(space, CONFIG, 0.0) as recorder:
            work(space.store, recorder)
            raise error
        return runs

    return stop


def test_members_that_were_trained_stay_finished_when_the_merge_stops(stopped) -> None:
    def work(store: Store, recorder: Recorder) -> None:
        jobs, made = zip(*(trained(store, name) for name in ("one", "two")), strict=True)
        recorder.expect(jobs)
        recorder.members({job.name: one for job, one in zip(jobs, made, strict=True)})
        recorder.child("merge", "merge")

    runs = stopped(work, MergeError("no"))
    assert runs.found["member one"].status == "FINISHED", "already when the members are done"
    assert runs.fail() == {"job": "FAILED", "member one": "FINISHED", "member two": "FINISHED", "merge": "FAILED"}
    assert runs.found["member one"].logged["params"]["steps"] == 4


def test_a_member_that_was_trained_is_finished_though_another_was_not(stopped) -> None:
    def work(store: Store, recorder: Recorder) -> None:
        recorder.expect([trained(store, "one")[0], untrained("two")])

    runs = stopped(work, TrainingError("two could not be trained"))
    assert runs.fail() == {"job": "FAILED", "member one": "FINISHED", "member two": "FAILED"}


def test_a_store_that_is_gone_does_not_hide_the_error(stopped, monkeypatch) -> None:
    def work(store: Store, recorder: Recorder) -> None:
        recorder.expect([trained(store, "one")[0]])

        def refuse(*_: object) -> None:
            raise StoreError("the store is gone")

        monkeypatch.setattr(Store, "get", refuse)

    assert stopped(work, MergeError("the real reason")).fail()["member one"] == "FAILED"


def test_scores_that_reopen_a_finished_run_end_it_again(tmp_path: Path) -> None:
    space, runs = bare_workspace(tmp_path / "store")
    recorder = Recorder(space, CONFIG, 0.0)
    job, made = trained(space.store, "one")
    recorder.expect([job])
    recorder.members({"one": made})
    result: Any = SimpleNamespace(evaluation=SimpleNamespace(scores=(), failures=()), baseline=None)
    recorder._scores(result, [{"model": "one", "in_domain": 0.5}, {"model": "merged", "in_domain": 0.6}])
    assert runs.found["member one"].logged["metrics"]["scores/in_domain"] == 0.5
    assert runs.fail() == {"job": "FAILED", "member one": "FINISHED", "scores": "FAILED", "merge": "FINISHED"}
