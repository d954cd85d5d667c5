"""jobs/merge.py as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from tests.tiny_members import Kitchen, make_kitchen

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Kitchen:
    return make_kitchen(tmp_path_factory.mktemp("kitchen"))


def job(kitchen: Kitchen, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/merge.py", str(kitchen.job()), *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_plan_needs_no_cluster_and_leaves_nothing(kitchen):
    done = job(kitchen, "--dry-run", "merge.method=ties", "merge.parameters.density=0.3")
    assert done.returncode == 0, done.stderr
    assert "density 0.3" in done.stdout and "memory       at most" in done.stdout
    assert not (kitchen.root / "store").exists() and not (kitchen.root / "mlflow.db").exists()


@pytest.mark.slow
def test_a_fault_is_one_sentence_and_a_code(kitchen):
    done = job(kitchen, "merge.parameters.density=0.3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "linear has no parameter density" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_what_the_last_lines_say_works(kitchen):
    done = job(kitchen, "merge.method=multislerp")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("The merged model: "))
    scope: dict[str, object] = {}
    exec("\n".join(line.strip() for line in lines[start + 1 : start + 3]), scope)
    model = scope["model"]
    assert isinstance(model, SentenceTransformer) and np.isfinite(model.encode("a cat")).all()
    assert "mlflow" in done.stdout and "Took " in lines[-1]
