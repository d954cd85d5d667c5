"""A real local Ray head as `ray start` makes it, and a job that is tiny in all its parts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.evaluation.task_folders import sentences, write_jsonl, write_task
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STEPS = 600  # some ten seconds: long enough to be stopped in the middle


def free_ports(count: int) -> list[int]:
    """Ports on loopback that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


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
    """The configuration of a job with two datasets of a few hundred rows, a tiny model and two test sets."""
    folder = tmp_path_factory.mktemp("job")
    texts = sentences(240)
    rows = [{"query": f"where is {text.split()[1]} {n}", "pos": [text]} for n, (text, _) in enumerate(texts)]
    write_jsonl(folder / "search.jsonl", rows)
    write_jsonl(folder / "topics.jsonl", [{"text": f"{text} and so on", "label": topic} for text, topic in texts])
    tests = [write_task(folder / "passages", "retrieval"), write_task(folder / "similar", "sts")]
    config = {
        "name": "tiny",
        "model": {"base": str(make_tiny_model(folder / "base"))},
        "corpus": {
            "max_query_tokens": 16,
            "max_passage_tokens": 16,
            "datasets": [
                {"name": "search", "source": str(folder / "search.jsonl"), "task_type": "retrieval"},
                {"name": "topics", "source": str(folder / "topics.jsonl"), "task_type": "classification"},
            ],
        },
        "bags": {"ratios": [0.5, 1.0]},
        "training": {
            "batch_size": 16,
            "negatives": 2,
            "epochs": 100,
            "max_steps": STEPS,
            "precision": "float32",
            "checkpoint_every": 20,
            "micro_batch_tokens": 256,
            "resources": {"memory_gb_per_worker": 0.1},
        },
        "evaluation": {
            "in_domain": [tests[0].model_dump(mode="json")],
            "out_of_domain": [tests[1].model_dump(mode="json")],
            "actors": 1,
        },
        "tracking": {"log_model": False},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
