"""A real local Ray head as `ray start` makes it, and a job that is tiny in all its parts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boom_ray.store import MANIFEST
from tests.ports import free_ports
from tests.tiny_job import write_job

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STEPS = 300


@dataclass(frozen=True)
class Head:
    """A running head: where jobs are submitted, and the environment of whoever talks to it."""

    address: str
    env: dict[str, str]

    def ray(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run ``ray ARGUMENTS`` with output and errors together."""
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            env=self.env,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )

    def submit(self, name: str, *job: str, wait: bool = True) -> subprocess.CompletedProcess[str]:
        """``ray job submit --working-dir . -- python jobs/boom.py JOB…``, as the README has it."""
        environment = {"env_vars": {"TOKENIZERS_PARALLELISM": "false", "RAY_JOB_STOP_WAIT_TIME_S": "20"}}
        options = ["--address", self.address, "--working-dir", ".", "--submission-id", name]
        options += ["--runtime-env-json", json.dumps(environment), *([] if wait else ["--no-wait"])]
        return self.ray("job", "submit", *options, "--", "python", "jobs/boom.py", *job)

    def status(self, name: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        text = self.ray("job", "status", "--address", self.address, name).stdout
        known = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED")
        return next((one for one in known if one in text or one.lower() in text), text)

    def logs(self, name: str) -> str:
        """All that the job printed."""
        return self.ray("job", "logs", "--address", self.address, name).stdout


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """One head for all tests of submitted jobs; its process group is ended by its own id, never by `ray stop`."""
    home = Path(tempfile.mkdtemp(prefix="bj-"))
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PYTHONUNBUFFERED": "1",
    }
    gcs, dashboard, client, agent, metrics = free_ports(5)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", f"--port={gcs}", f"--temp-dir={home / 'ray'}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", "--object-store-memory=300000000"),
        "--disable-usage-stats",
    ]
    with (home / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    started = Head(f"http://127.0.0.1:{dashboard}", env)
    try:
        _wait_for_head(started, process, home / "head.log")
        yield started
    finally:
        _end_group(process)
        shutil.rmtree(home, ignore_errors=True)


def _wait_for_head(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if head.ray("job", "list", "--address", head.address).returncode == 0:
            return
        time.sleep(1)
    raise RuntimeError(f"The head did not start:\n{log.read_text()}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait(5)


@pytest.fixture(scope="session")
def tiny_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a tiny job that trains long enough to be stopped in the middle.

    Without decontamination, so that the same members come out of a job without evaluation.
    """
    return write_job(
        tmp_path_factory.mktemp("job"),
        rows=1600,
        corpus={"decontaminate": False},
        training={"batch_size": 8, "max_steps": STEPS, "checkpoint_every": 10, "log_every": 50},
        tracking={"log_model": False},
    )


def checkpoints(store: Path) -> list[Path]:
    """Checkpoints of members in training, by their progress files."""
    return list((store / "training").glob("*/step*/progress.json"))


def artifacts(store: Path, kind: str) -> list[dict[str, Any]]:
    """Manifests of all finished artifacts of a kind."""
    return [json.loads(path.read_text()) for path in sorted((store / kind).glob(f"*/{MANIFEST}"))]
