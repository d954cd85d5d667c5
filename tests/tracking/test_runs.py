from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from boom_ray.tracking import Run, Tracker
from boom_ray.tracking.runs import flatten

Open = Callable[[], Tracker]


def stored(tracker: Tracker, run: Run):
    """What MLflow has of a run now."""
    assert tracker.flush()
    return tracker.client.get_run(run.id)


def steps(tracker: Tracker, run: Run, name: str) -> list[tuple[int, float]]:
    assert tracker.flush()
    return sorted((point.step, point.value) for point in tracker.client.get_metric_history(run.id, name))


def test_a_run_holds_what_was_logged(open_tracker: Open):
    tracker = open_tracker()
    run = tracker.run("key", "name", tags={"stage": "members"})
    run.params({"training": {"lr": 2e-5, "epochs": 1}, "bags": [0.2, 0.4], "base": None})
    run.metrics({"loss": 0.5, "ndcg@10": 0.7}, step=3)
    run.note("# Card")
    found = stored(tracker, run)
    assert found.data.params == {"training.lr": "2e-05", "training.epochs": "1", "bags": "[0.2, 0.4]", "base": "null"}
    assert found.data.metrics == {"loss": 0.5, "ndcg_at_10": 0.7}
    assert found.data.tags["stage"] == "members" and found.data.tags["mlflow.note.content"] == "# Card"
    assert (found.info.run_name, found.info.status) == ("name", "RUNNING")


def test_children_hang_below_their_parent(open_tracker: Open):
    tracker = open_tracker()
    parent = tracker.run("job", "job")
    child = tracker.run("job/member", "member", parent=parent)
    assert stored(tracker, child).data.tags["mlflow.parentRunId"] == parent.id


def test_a_key_is_one_run_within_a_job_and_across_jobs(open_tracker: Open):
    first = open_tracker()
    run = first.run("key", "name")
    assert first.run("key", "name") is run
    first.close("KILLED")
    second = open_tracker()
    again = second.run("key", "name")
    assert again.id == run.id
    assert stored(second, again).info.status == "RUNNING"
    assert len(second.client.search_runs([second.experiment])) == 1


def test_a_curve_that_is_logged_again_is_not_drawn_twice(open_tracker: Open):
    first = open_tracker()
    first.run("key", "name").history([("loss", 1 / (step + 1), step, 1000 + step) for step in range(5)])
    first.close()
    second = open_tracker()
    run = second.run("key", "name")
    run.history([("loss", 1 / (step + 1), step, 9000 + step) for step in range(8)])
    run.history([("other", 1.0, 0, 9000)])
    assert steps(second, run, "loss") == [(step, 1 / (step + 1)) for step in range(8)]
    assert steps(second, run, "other") == [(0, 1.0)]


def test_a_member_that_goes_back_to_its_checkpoint_does_not_draw_its_curve_twice(open_tracker: Open):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    for step in (0, 1, 2, 3, 1, 2, 3, 4):
        run.metrics({"loss": 1.0 / (step + 1)}, step)
        assert tracker.flush()
    assert steps(tracker, run, "loss") == [(step, 1.0 / (step + 1)) for step in range(5)]


def test_a_score_that_changed_at_its_only_step_is_logged(open_tracker: Open):
    first = open_tracker()
    first.run("key", "name").metrics({"score": 0.5})
    first.close()
    second = open_tracker()
    run = second.run("key", "name")
    run.metrics({"score": 0.6})
    assert stored(second, run).data.metrics == {"score": 0.6}


def test_a_finished_run_to_which_nothing_is_added_keeps_its_end(open_tracker: Open):
    first = open_tracker()
    run = first.run("key", "name")
    run.metrics({"score": 0.5})
    run.params({"a": 1})
    run.end()
    before = stored(first, run).info
    first.close()
    second = open_tracker()
    again = second.run("key", "name")
    again.metrics({"score": 0.5})
    again.params({"a": 1})
    again.end()
    after = stored(second, again).info
    assert (after.status, after.end_time) == ("FINISHED", before.end_time)
    again.metrics({"score": 0.7}, step=1)
    assert stored(second, again).info.status == "RUNNING"


def test_another_value_of_a_parameter_becomes_a_tag(open_tracker: Open):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    run.params({"a": 1})
    assert stored(tracker, run).data.params == {"a": "1"}
    run.params({"a": 1, "b": 2})
    run.params({"a": 3, "b": 4})
    found = stored(tracker, run).data
    assert found.params == {"a": "1", "b": "2"}
    assert (found.tags["changed.a"], found.tags["changed.b"]) == ("3", "4")


def test_a_long_parameter_is_cut_and_kept_whole_as_a_file(open_tracker: Open, store: Path):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    run.params({"prompt": "x" * 7000})
    value = stored(tracker, run).data.params["prompt"]
    assert len(value) == 500 and value.endswith("…")
    assert artifact(store, run, "params/prompt.txt") == b"x" * 7000


def test_more_values_than_one_request_takes(open_tracker: Open):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    run.params({f"p{i}": i for i in range(250)})
    run.history([("loss", float(i), i, i) for i in range(2500)])
    assert len(stored(tracker, run).data.params) == 250
    assert steps(tracker, run, "loss") == [(i, float(i)) for i in range(2500)]


def test_nan_and_infinity_do_not_stop_a_curve(open_tracker: Open):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    run.history([("loss", value, step, step) for step, value in enumerate([1.0, math.nan, math.inf, 2.0])])
    assert [step for step, _ in steps(tracker, run, "loss")] == [0, 1, 2, 3]


def artifact(store: Path, run: Run, name: str) -> bytes:
    return (store / "mlflow-artifacts" / str(run.id) / "artifacts" / name).read_bytes()


def test_files_of_every_kind(open_tracker: Open, store: Path, tmp_path: Path):
    tracker = open_tracker()
    run = tracker.run("key", "name")
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    run.figure("pictures/loss.png", figure)
    run.text("card.md", "größer")
    run.table("scores.csv", [{"model": "base", "mean": 0.5}, {"model": "merged", "ood": 0.25}])
    (tmp_path / "config.yaml").write_text("a: 1\n")
    run.file(tmp_path / "config.yaml", "config")
    assert tracker.flush()
    assert artifact(store, run, "pictures/loss.png").startswith(b"\x89PNG")
    assert artifact(store, run, "card.md").decode() == "größer"
    assert artifact(store, run, "scores.csv") == b"model,mean,ood\nbase,0.5,\nmerged,,0.25\n"
    assert artifact(store, run, "config/config.yaml") == b"a: 1\n"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_leaving_the_block_ends_open_runs_as_it_ended(open_tracker: Open, error, status):
    tracker = open_tracker()
    try:
        with tracker:
            done = tracker.run("done", "done")
            done.end("FINISHED")
            left = tracker.run("left", "left")
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert tracker.client.get_run(done.handle.id).info.status == "FINISHED"
    assert tracker.client.get_run(left.handle.id).info.status == status


def test_many_threads_log_into_many_runs(open_tracker: Open):
    tracker = open_tracker()
    parent = tracker.run("job", "job")

    def work(member: int) -> None:
        for step in range(50):
            tracker.run(f"m{member}", f"m{member}", parent).metrics({"loss": float(step)}, step)

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.flush()
    assert len(tracker.client.search_runs([tracker.experiment])) == 5
    for member in range(4):
        run = tracker.run(f"m{member}", f"m{member}")
        assert {step for step, _ in steps(tracker, run, "loss")} == set(range(50))


def test_a_key_with_a_quote_is_refused(open_tracker: Open):
    with pytest.raises(ValueError, match="double quote"):
        open_tracker().run('a"b', "name")


def test_how_to_open_names_the_database(open_tracker: Open, store: Path):
    assert f"ui --backend-store-uri sqlite:///{store}/mlflow.db" in open_tracker().how_to_open()


def test_flatten_names_leaves_as_overrides_do():
    nested = {"a": {"b": [1, 2], "c": {}}, "d": [{"e": 1}, {"e": 2}], "f": "x"}
    assert dict(flatten(nested)) == {"a.b": [1, 2], "a.c": {}, "d.0.e": 1, "d.1.e": 2, "f": "x"}
    assert json.dumps(dict(flatten(nested)))
