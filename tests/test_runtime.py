from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import WorkerGroupError

from boom_ray import runtime
from boom_ray.config import ClusterConfig
from boom_ray.errors import BoomError, ConfigError, DataError, ModelError
from boom_ray.events import Event

OUR_TEXT = "train.jsonl:3: the query is empty."


def in_task(error: Exception) -> Exception:
    """As `ray.get` raises it: also an instance of the error's own class, its text a traceback."""
    return RayTaskError("read", "Traceback (most recent call last): …", error).as_instanceof_cause()


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:
        return caught


class TestCause:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda error: error,
            in_task,
            lambda error: in_task(in_task(error)),
            lambda error: WorkerGroupError("workers failed", {0: error}),
            lambda error: WorkerGroupError("workers failed", {1: in_task(error), 0: RuntimeError("peer lost")}),
            lambda error: raised(RuntimeError("could not read"), in_task(error)),
            lambda error: in_task(raised(RuntimeError("outer"), WorkerGroupError("inner", {0: in_task(error)}))),
        ],
    )
    def test_our_error_is_found_whatever_ray_wrapped_around_it(self, wrap: Any) -> None:
        found = runtime.cause(wrap(DataError(OUR_TEXT)))
        assert type(found) is DataError
        assert str(found) == OUR_TEXT

    @pytest.mark.parametrize("wrap", [in_task, lambda error: WorkerGroupError("failed", {0: in_task(error)})])
    def test_another_error_is_unwrapped_from_ray_only(self, wrap: Any) -> None:
        own = raised(RuntimeError("the model is too large"), KeyError("x"))
        assert runtime.cause(wrap(own)) is own

    def test_an_error_of_rays_own_stays(self) -> None:
        died = ActorDiedError()
        assert runtime.cause(died) is died

    def test_a_suppressed_context_is_no_cause(self) -> None:
        error = RuntimeError("later")
        error.__context__ = DataError("handled before")
        assert type(runtime.cause(error)) is DataError
        error.__suppress_context__ = True
        assert runtime.cause(error) is error

    def test_rings_end(self) -> None:
        first, second = RuntimeError("1"), RuntimeError("2")
        first.__cause__, second.__cause__ = second, first
        assert runtime.cause(first) is first

    @pytest.mark.ray
    def test_with_a_real_task(self, ray_cluster: None) -> None:
        @ray.remote(num_cpus=0)
        def fail() -> None:
            raise ModelError(OUR_TEXT)

        with pytest.raises(BoomError) as caught:
            ray.get(fail.remote())
        assert str(caught.value) != OUR_TEXT, "Ray's wrapper has a traceback as its text"
        assert str(runtime.cause(caught.value)) == OUR_TEXT


@pytest.mark.ray
class TestEventQueue:
    def test_events_of_workers_arrive_once_and_in_order(self, ray_cluster: None) -> None:
        @ray.remote(num_cpus=0)
        def work(queue: Any, unit: str) -> None:
            for step in range(20):
                queue.put(Event("members", unit, step, 20, {"loss": 1.0 / (step + 1)}))

        events: list[Event] = []
        with runtime.event_queue(events.append, interval_s=0.01) as queue:
            ray.get([work.remote(queue, unit) for unit in ("a", "b")])
        for unit in ("a", "b"):
            mine = [event for event in events if event.unit == unit]
            assert [event.done for event in mine] == list(range(20))
        assert len(events) == 40

    def test_what_was_put_before_an_error_is_still_reported(self, ray_cluster: None) -> None:
        events: list[Event] = []
        with pytest.raises(DataError), runtime.event_queue(events.append, interval_s=60) as queue:
            queue.put(Event("corpus", "a", 1, 2))
            raise DataError("bad row")
        assert [event.unit for event in events] == ["a"]

    def test_a_listener_that_fails_loses_only_its_own_event(
        self, ray_cluster: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        events: list[Event] = []

        def listen(event: Event) -> None:
            if event.done == 1:
                raise ValueError("cannot show this")
            events.append(event)

        with runtime.event_queue(listen, interval_s=0.01) as queue:
            for step in range(3):
                queue.put(Event("merge", "m", step, 3))
        assert [event.done for event in events] == [0, 2]
        assert "was not reported" in caplog.text

    def test_no_thread_or_actor_is_left(self, ray_cluster: None) -> None:
        with runtime.event_queue(lambda event: None) as queue:
            actor = queue.actor
        assert "events" not in {thread.name for thread in threading.enumerate()}
        deadline = time.monotonic() + 30
        with pytest.raises(ray.exceptions.ActorDiedError):
            while time.monotonic() < deadline:  # the kill is on its way
                ray.get(actor.qsize.remote(), timeout=30)


@pytest.mark.ray
def test_resources_of_the_cluster(ray_cluster: None) -> None:
    (found,) = runtime.nodes_resources(wait_s=5)
    assert (found["CPU"], found["GPU"]) == (4, 0)
    assert 0.1 < found["memory_gb"] < 10_000


@pytest.mark.ray
def test_a_cluster_that_is_there_is_used_and_left_running(ray_cluster: None) -> None:
    with runtime.cluster(ClusterConfig(num_cpus=1)):
        assert runtime.nodes_resources()[0]["CPU"] == 4
    assert ray.is_initialized()


def test_workers_get_our_switches_except_those_the_submitted_job_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert set(runtime._worker_environment()) == set(runtime.ENVIRONMENT)
    job = {"runtime_env": {"env_vars": {"TOKENIZERS_PARALLELISM": "true"}}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert set(runtime._worker_environment()) == set(runtime.ENVIRONMENT) - {"TOKENIZERS_PARALLELISM"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": None}))
    assert set(runtime._worker_environment()) == set(runtime.ENVIRONMENT)


def test_no_cluster_at_the_address_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    match = r"joined at 10.0.0.1:6379: Could not find .* cluster.address"
    with pytest.raises(ConfigError, match=match), runtime.cluster(ClusterConfig(address="10.0.0.1:6379")):
        raise AssertionError("not reached")


def test_sigterm_ends_a_job_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        runtime.interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_must_fit_on_one_node_whole() -> None:
    nodes = [{"CPU": 3.0, "GPU": 0.0}, {"CPU": 3.0, "GPU": 2.0}]
    assert runtime.room(nodes, cpus=2, gpus=0) == 2
    assert runtime.room(nodes, cpus=1, gpus=0.5) == 3
    assert runtime.room(nodes, cpus=4, gpus=0) == 0
