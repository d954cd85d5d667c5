"""`ray job submit` against a real head: success, failure, and a stop in the middle that the next job continues."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import STEPS, Head, artifacts, checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NO_EVALUATION = ["evaluation.in_domain=[]", "evaluation.out_of_domain=[]"]


def wait_for(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(head: Head, tiny_job: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store and the output of a job that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed")
    done = head.submit("undisturbed", str(tiny_job), f"store={store}")
    assert done.returncode == 0, done.stdout
    return store, done.stdout


def test_a_submitted_job_succeeds_and_leaves_everything_in_the_store(head: Head, undisturbed: tuple[Path, str]) -> None:
    store, output = undisturbed
    assert head.status("undisturbed") == "SUCCEEDED"
    assert "Scores, mean over tasks" in output
    assert "The merged model: " in output
    assert "Traceback" not in output
    members = artifacts(store, "member")
    steps = sorted(member["figures"]["steps"] for member in members)
    assert steps == [200, STEPS], "half of 3,200 rows in batches of 8, and the configured limit"
    assert len({member["fingerprint"] for member in members}) == 2
    assert len(artifacts(store, "merge")) == 1
    assert len(artifacts(store, "scores")) == 2 * len(["base", "bag-50", "bag-100", "merged"])
    assert (store / "mlflow.db").stat().st_size > 0
    assert checkpoints(store) == [], "finished members need none"
    merged = next((store / "models").iterdir())
    assert (merged / "model.safetensors").is_file()


def test_a_failing_job_is_failed_with_our_sentence_in_its_log(head: Head, tiny_job: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.jsonl"
    done = head.submit("failing", str(tiny_job), f"store={tmp_path / 'store'}", f"corpus.datasets.0.source={missing}")
    assert done.returncode != 0
    assert head.status("failing") == "FAILED"
    log = head.logs("failing")
    assert f"error: Dataset pairs: no such file: {missing}." in log
    assert "Traceback" not in log


def test_a_stopped_job_is_continued_by_the_next_one_as_if_nothing_had_happened(
    head: Head, tiny_job: Path, tmp_path: Path, undisturbed: tuple[Path, str]
) -> None:
    job = [str(tiny_job), f"store={tmp_path}", "bags.ratios=[1.0]", *NO_EVALUATION]
    assert head.submit("stopped", *job, wait=False).returncode == 0
    wait_for(lambda: len(checkpoints(tmp_path)) > 1)  # so that the first is complete
    head.ray("job", "stop", "--address", head.address, "stopped")
    wait_for(lambda: head.status("stopped") == "STOPPED")
    assert "Run the same command again to continue." in head.logs("stopped")
    assert len(artifacts(tmp_path, "corpus")) == 1
    assert artifacts(tmp_path, "member") == [], "stopped too late to test anything"
    assert checkpoints(tmp_path)

    again = head.submit("continued", *job)
    assert again.returncode == 0, again.stdout
    (member,) = artifacts(tmp_path, "member")
    assert 0 < member["figures"]["resumed_at"] < STEPS
    twin = {one["key"]: one["fingerprint"] for one in artifacts(undisturbed[0], "member")}[member["key"]]
    assert member["fingerprint"] == twin, "bit-identical weights"
    assert list(tmp_path.rglob(".draft-*")) == [], "what the stopped job was writing is gone"
