from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from boom_ray.tracking.delivery import ATTEMPTS, gathered, write_undelivered
from boom_ray.tracking.operations import Batch, Finish, Handle, Upload


def gone(name: str) -> Exception:
    return ConnectionError("connection refused")


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def handle(key: str) -> Handle:
    return Handle(key, key, None, {}, 0, "1")


def test_what_is_logged_while_the_server_is_away_arrives_when_it_is_back(flaky, caplog):
    tracker, client = flaky
    caplog.set_level(logging.WARNING)
    run = tracker.run("before", "before")
    assert tracker.flush()
    client.failing = gone
    late = tracker.run("during", "during", parent=run)
    for step in range(5):
        run.metrics({"loss": float(step)}, step)
        late.metrics({"loss": float(step)}, step)
        tracker.flush()
    run.text("card.md", "text")
    assert not tracker.flush() and late.id is None
    client.failing = lambda name: None
    while not tracker.flush():
        pass
    assert tracker.close() == []
    for one in (run, late):
        history = client.client.get_metric_history(one.handle.id, "loss")
        assert sorted(point.step for point in history) == [0, 1, 2, 3, 4]
    assert client.client.get_run(late.handle.id).data.tags["mlflow.parentRunId"] == run.handle.id
    assert [entry.message for entry in caplog.records if "does not answer" in entry.message] != []
    assert sum("does not answer" in entry.message for entry in caplog.records) == 1
    assert sum("answers again" in entry.message for entry in caplog.records) == 1


def test_what_cannot_be_delivered_is_written_and_named(flaky, caplog):
    tracker, client = flaky
    run = tracker.run("job/one", "one")
    assert tracker.flush()
    client.failing = gone
    run.metrics({"loss": 0.5, "bad": float("nan")}, step=2)
    run.params({"a": 1})
    run.text("cards/card.md", "text")
    run.end()
    (path,) = tracker.close()
    assert path in caplog.text
    found = lines(path)
    assert {(line["run"], line["key"], line["id"]) for line in found} == {("one", "job/one", run.handle.id)}
    (batch,) = [line for line in found if "metrics" in line]
    assert [point[:3] for point in batch["metrics"]] == [["loss", 0.5, 2], ["bad", "nan", 2]]
    assert batch["params"] == {"a": "1"}
    assert [line["end"] for line in found if "end" in line] == ["FINISHED"]
    assert (Path(path.removesuffix(".jsonl")) / "cards/card.md").read_text() == "text"


def test_a_value_mlflow_refuses_does_not_take_others_with_it(flaky):
    tracker, client = flaky
    run = tracker.run("key", "name")
    run.history([("loss", 1.0, 1, 5), ("loss", 2.0, 2, -5), ("x" * 300, 3.0, 3, 5), ("../up", 4.0, 1, 5)])
    run.params({"fine": 1, "/absolute": 2})
    assert tracker.flush()
    (path,) = tracker.close()
    data = client.client.get_run(run.handle.id).data
    assert data.params == {"fine": "1"} and data.metrics["loss"] == 1.0
    refused = [point[0] for line in lines(path) for point in line["metrics"]]
    assert "../up" in refused and "loss" in refused


def test_an_upload_that_keeps_failing_does_not_block_the_rest(flaky):
    tracker, client = flaky
    client.failing = lambda name: OSError("disk full") if name == "log_artifact" else None
    run, other = tracker.run("key", "name"), tracker.run("other", "other")
    run.text("card.md", "text")
    run.metrics({"loss": 1.0})
    run.end()
    other.metrics({"loss": 2.0})
    assert tracker.flush()
    (path,) = tracker.close()
    assert client.calls.count("log_artifact") == ATTEMPTS
    assert client.client.get_run(run.handle.id).data.metrics == {"loss": 1.0}
    assert client.client.get_run(run.handle.id).info.status == "FINISHED"
    assert client.client.get_run(other.handle.id).data.metrics == {"loss": 2.0}
    assert [line["file"] for line in lines(path)] == ["card.md"]
    assert "disk full" in lines(path)[0]["reason"]


def test_a_run_that_cannot_be_created_loses_nothing(flaky):
    tracker, client = flaky
    client.failing = lambda name: MlflowException("quota", error_code=3) if name == "create_run" else None
    run = tracker.run("key", "name")
    run.metrics({"loss": 1.0})
    (path,) = tracker.close()
    assert run.id is None
    assert [point[:2] for line in lines(path) for point in line.get("metrics", [])] == [["loss", 1.0]]


def test_logging_after_the_end_is_said_and_harmless(flaky, caplog):
    tracker, _ = flaky
    run = tracker.run("key", "name")
    tracker.close()
    run.metrics({"loss": 1.0})
    assert "closed" in caplog.text


def test_neighbouring_batches_join_within_their_run_and_order_stays():
    one, two = handle("one"), handle("two")
    end = Finish("FINISHED", 0)
    items = [
        (one, Batch([("a", 1.0, 0, 0)], {"p": "1"}, {"t": "1"})),
        (two, Batch([("a", 5.0, 0, 0)])),
        (one, Batch([("a", 2.0, 1, 0)], {"p": "2"}, {"t": "2"})),
        (one, end),
        (one, Batch([("a", 3.0, 2, 0)])),
    ]
    assert gathered(items) == [
        (one, Batch([("a", 1.0, 0, 0), ("a", 2.0, 1, 0)], {"p": "1"}, {"t": "2", "changed.p": "2"})),
        (one, end),
        (one, Batch([("a", 3.0, 2, 0)])),
        (two, Batch([("a", 5.0, 0, 0)])),
    ]


def test_undelivered_goes_to_any_filesystem():
    fsspec = pytest.importorskip("fsspec")
    (path,) = write_undelivered([(handle("a/b"), Upload("x/y.txt", b"1"), "why")], "memory://undelivered")
    fs = fsspec.filesystem("memory")
    assert json.loads(fs.cat_file(path))["file"] == "x/y.txt"
    assert fs.cat_file(f"{path.removesuffix('.jsonl')}/x/y.txt") == b"1"


def test_a_place_that_cannot_be_written_is_said_and_does_not_raise(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert write_undelivered([(handle("a"), Upload("x", b"1"), "why")], f"{tmp_path}/file/below") == []
    assert "cannot be written" in caplog.text
