"""A job as a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(script: str, config: Path, *arguments: str) -> subprocess.Popen[str]:
    """``python jobs/SCRIPT CONFIG …`` with its own Ray; output and errors together."""
    return subprocess.Popen(
        [sys.executable, f"jobs/{script}", str(config), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
