"""jobs/update.py as a user runs it: plans and faults, which need no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boom_ray.flows.lineage import keep
from boom_ray.store import Store
from tests.flows.lineages import lineage, run_config
from tests.tiny_update import write_update

ROOT = Path(__file__).parents[2]


def job(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/update.py", str(config), *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a lineage, and of what it names only the core."""
    store = Store(tmp_path / "store")
    core = store.materialize("bag", {}, {}, lambda draft: draft.figures.update(examples={"a": 28, "b": 12}))
    (layer,) = lineage().layers
    there = (type(layer)(layer.name, layer.corpus, f"bag/{core.key}", layer.examples),)
    keep(store, lineage(run_config(evaluation={}), layers=there))
    return store


@pytest.mark.slow
def test_a_plan_needs_no_cluster_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    path = write_update(tmp_path, "plus", "old")
    before = sorted(tmp_path.rglob("*"))
    done = job(path, "--dry-run", "merge.method=slerp")
    assert done.returncode == 0, done.stderr
    for words in ("Updated is old, lineage/", "old → plus", "slerp of old, plus", "1 new", "40 examples are replayed"):
        assert words in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_fault_is_one_sentence_and_a_code(store: Store, tmp_path: Path) -> None:
    path = write_update(tmp_path, "plus", "old")
    done = job(path, "current=nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no run or update in" in done.stderr and "is called nobody. There are old." in done.stderr
    assert "Traceback" not in done.stderr
    done = job(path, "training.learning_rat=1")
    assert done.returncode == 2 and "training.learning_rat: unknown key; did you mean learning_rate?" in done.stderr
