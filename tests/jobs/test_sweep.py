"""jobs/sweep.py as a user runs it: killed in the middle, continued, and the same trials as in one go."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.flows.sweep.test_flow import write_sweep
from tests.jobs.processes import start

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def manifests(folder: Path, kind: str) -> dict[str, int]:
    """Artifacts of a kind and when they were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "store" / kind).glob("*/artifact.json")}


def test_a_killed_driver_goes_on_without_losing_or_repeating_a_trial(tmp_path):
    job = write_sweep(tmp_path, trials=8, batch=2)
    killed = start("sweep.py", job)
    deadline = time.monotonic() + 240
    while len(manifests(tmp_path, "trial")) < 3:
        assert killed.poll() is None, killed.stdout.read() if killed.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(30)
    trials, members = manifests(tmp_path, "trial"), manifests(tmp_path, "member")
    final = start("sweep.py", job, "--resume")
    output = final.communicate(timeout=300)[0]
    assert final.returncode == 0, output
    later = manifests(tmp_path, "trial")
    assert {key: later[key] for key in trials} == trials  # not computed again
    assert {key: written for key, written in manifests(tmp_path, "member").items() if key in members} == members
    assert "8 trials: 8 finished, 0 stopped early, 0 failed." in output
    (table,) = (tmp_path / "store" / "sweep").glob("*/trials.json")
    rows = json.loads(table.read_text())
    assert [row["number"] for row in rows] == list(range(8))
