"""Trials on actors: in order, from the store, after a death, and again after the actors were let go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import ray

from boom_ray.config import EvaluationConfig, ModelConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.events import Event
from boom_ray.store import Store
from boom_ray.sweeps.arena import Arena
from boom_ray.sweeps.live import LiveEvaluator
from tests.sweeps.conftest import MakeJob


class NoActors(Arena):
    """An arena that must not compute."""

    def _start(self, jobs: int, all_local: bool) -> None:
        raise AssertionError("an actor was started")


def here() -> int:
    return os.getpid()


@pytest.mark.ray
def test_jobs_in_order_then_from_the_store_without_actors(ray_cluster: None, tmp_path: Path, job: MakeJob) -> None:
    store, events = Store(tmp_path / "store"), list[Event]()
    config, model = EvaluationConfig(actors=2), ModelConfig()
    jobs = [
        job(method="linear", weights=[1, 2, 3]),
        job(method="linear", weights=[1, 2]),  # does not fit
        job(method="multislerp", members=("one", "two")),
        job(method="task_arithmetic", parameters={"scale": 1e9}, output_dtype="float16"),
        job(method="linear", weights=[2, 4, 6]),  # the first one again
    ]
    arena = Arena(store, config, model)
    try:
        outcomes = arena.score(jobs, events.append)
        assert len(arena._actors) == 2
        more = arena.score([job(method="ties", members=("one", "two"))])
    finally:
        arena.close()
    assert [outcome.job for outcome in outcomes] == jobs
    alone = LiveEvaluator(Store(tmp_path / "alone"), config, model)
    for outcome, one in zip([outcomes[0], outcomes[2], more[0]], [jobs[0], jobs[2], more[0].job], strict=True):
        assert outcome.scores == alone.score(one).figures["scores"] and not outcome.error and outcome.seconds > 0
    assert outcomes[4].figures == outcomes[0].figures
    assert "2 numbers for 3 members" in outcomes[1].error and "float16 cannot hold" in outcomes[3].error
    assert not outcomes[1].scores and not outcomes[3].scores and not any(outcome.stored for outcome in outcomes)
    ended = {event.unit: event for event in events if event.done}
    assert ended.keys() == {one.name for one in jobs} and "failed: " in ended[jobs[3].name].note
    assert set(ended[jobs[0].name].figures) == {"score", "seconds"}
    again = NoActors(store, config, model).score(jobs, events.append)
    assert [outcome.figures for outcome in again] == [outcome.figures for outcome in outcomes]
    assert [outcome.error for outcome in again] == [outcome.error for outcome in outcomes]
    assert [outcome.stored for outcome in again] == [True, False, True, True, True]


@pytest.mark.ray
def test_released_actors_give_their_room_back_and_start_again(ray_cluster: None, tmp_path: Path, job: MakeJob) -> None:
    arena = Arena(Store(tmp_path), EvaluationConfig(cpus_per_actor=4), ModelConfig())
    try:
        for weights in ([1, 2, 3], [3, 2, 1]):
            (outcome,) = arena.score([job(method="linear", weights=weights)])
            assert not outcome.error
            arena.release()
            assert ray.get(ray.remote(here).options(num_cpus=4).remote(), timeout=120)
    finally:
        arena.close()


@pytest.mark.ray
@pytest.mark.slow
def test_an_actor_that_dies_is_restarted_and_its_job_tried_once_more(
    ray_cluster: None, tmp_path: Path, job: MakeJob
) -> None:
    class DyingStore(Store):
        """Ends its process when a trial is stored, as often as the file ``deaths`` says."""

        def __reduce__(self) -> tuple[Any, ...]:
            return (DyingStore, (self.root, self.scratch))

        def materialize(self, kind: str, *arguments: Any, **named: Any) -> Any:
            deaths = Path(self.root) / "deaths"
            left = int(deaths.read_text())
            if kind == "trial" and left:
                deaths.write_text(str(left - 1))
                os._exit(1)
            return super().materialize(kind, *arguments, **named)

    store = DyingStore(tmp_path)
    arena = Arena(store, EvaluationConfig(actors=1), ModelConfig())
    try:
        for deaths, weights in ((1, [1, 2, 3]), (2, [2, 2, 3]), (0, [3, 2, 1])):
            (tmp_path / "deaths").write_text(str(deaths))
            (outcome,) = arena.score([job(method="linear", weights=weights)])
            assert bool(outcome.scores) == (deaths < 2)
            assert ("died again on a second try" in outcome.error) == (deaths == 2)
    finally:
        arena.close()


@pytest.mark.ray
def test_what_hits_every_trial_ends_the_call(
    ray_cluster: None, tmp_path: Path, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = TaskConfig(name="x", path=str(tmp_path / "x"), type="sts")
    arena = NoActors(Store(tmp_path), EvaluationConfig(), ModelConfig())
    with pytest.raises(EvaluationError, match="Task x: there is no folder"):
        arena.score([job(method="linear", tasks=(missing,))])
    monkeypatch.setattr("boom_ray.evaluation.crew.START_TIMEOUT_S", 0.1)
    arena = Arena(Store(tmp_path), EvaluationConfig(cpus_per_actor=64), ModelConfig())
    with pytest.raises(EvaluationError, match="No node of the cluster has the 64 CPUs"):
        arena.score([job(method="linear")])
    assert arena._actors == []
