"""jobs/boom.py as a user runs it: interrupted, killed, continued."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from subprocess import Popen

import pytest

from boom_ray.config import RunConfig, load_config
from boom_ray.flows.run.flow import run
from boom_ray.store import Store
from tests.jobs.processes import start
from tests.tiny_job import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


def wait_for_checkpoint(folder: Path, process: Popen[str], seconds: float = 120) -> None:
    """Wait until a member in training has left a checkpoint that Ray has taken note of."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any("step0" in path.read_text() for path in (folder / "store" / "training").glob("*/checkpoint_man*")):
            return
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.05)
    raise AssertionError("no checkpoint appeared")


def member_fingerprints(folder: Path) -> set[str]:
    store = Store(folder / "store")
    keys = [path.parent.name for path in (folder / "store" / "member").glob("*/artifact.json")]
    return {artifact.fingerprint for key in keys if (artifact := store.get("member", key)) is not None}


def member_figures(folder: Path) -> list[dict]:
    return [json.loads(path.read_text())["figures"] for path in (folder / "store" / "member").glob("*/artifact.json")]


@pytest.fixture
def job(tmp_path) -> Path:
    return write_job(tmp_path, rows=1600, training={"checkpoint_every": 10, "max_steps": 150})


def test_a_killed_driver_and_an_interrupt_end_with_the_bytes_of_an_undisturbed_run(job, ray_cluster):
    """kill -9 first, then Ctrl-C, then to the end; the members equal those of a calm run elsewhere."""
    folder = job.parent
    killed = start("boom.py", job)
    wait_for_checkpoint(folder, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(30)
    interrupted = start("boom.py", job)
    time.sleep(1)
    wait_for_checkpoint(folder, interrupted)
    time.sleep(8)  # let it load models and continue before it is interrupted
    interrupted.send_signal(signal.SIGINT)
    output = interrupted.communicate(timeout=60)[0]
    assert interrupted.returncode == 130, output
    assert "Run the same command again to continue." in output
    final = start("boom.py", job)
    output = final.communicate(timeout=240)[0]
    assert final.returncode == 0, output
    assert any(figures["resumed_at"] > 0 for figures in member_figures(folder))
    calm = load_config(RunConfig, job, [f"store={folder / 'calm' / 'store'}", "evaluation.in_domain=[]"])
    assert run(calm) == 0
    assert member_fingerprints(folder) == member_fingerprints(folder / "calm")
    assert len(member_fingerprints(folder)) == 2
