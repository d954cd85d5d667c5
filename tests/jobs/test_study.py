"""jobs/study.py as a user starts it; what it does is tested in `tests.flows.study.test_flow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_study import write_study

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/study.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path):
    done = start(str(write_study(tmp_path)), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plan of tiny; nothing was written.\narms         7, each with 2 seeds")
    assert not (tmp_path / "store").exists()


def test_an_arm_that_cannot_be_is_one_sentence_and_exit_code_2(tmp_path):
    arms = [{"name": "bls"}, {"name": "longer", "set": {"training.epoch": 2}}]
    done = start(str(write_study(tmp_path, arms)))
    assert done.returncode == 2
    assert done.stderr == "error: Arm longer:\n  training.epoch: unknown key; did you mean epochs?\n"
    assert not (tmp_path / "store").exists()
