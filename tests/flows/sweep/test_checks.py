"""What ends a sweep before anything is trained; without Ray."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml

from boom_ray.config import SweepConfig, load_config
from boom_ray.errors import ConfigError
from boom_ray.flows import members
from boom_ray.flows.sweep import flow
from tests.evaluation.task_folders import write_jsonl
from tests.flows.recording import bare_workspace
from tests.tiny_job import write_job


def write_rare(folder: Path, rungs: list[int | None]) -> Path:
    """A job whose selection task has one pair of nine that is alike; a proxy needs five rows to have one of each."""
    path = write_job(folder)
    config = yaml.safe_load(path.read_text())
    rows = [{"sentence1": f"red {n}", "sentence2": f"blue {n}", "score": float(n == 3)} for n in range(9)]
    write_jsonl(folder / "rare" / "test.jsonl", rows)
    config["evaluation"]["selection"] = [{"name": "rare", "path": str(folder / "rare"), "type": "pair"}]
    config["sweep"] = {"space": {"merge.weights": {"simplex": {}}}, "rungs": rungs}
    path.write_text(yaml.safe_dump(config))
    return path


class Reached(Exception):
    """The base would be made now."""


def test_a_size_too_small_for_a_task_ends_the_sweep_before_the_base_is_made(tmp_path, monkeypatch):
    space, _ = bare_workspace(tmp_path / "store")

    def reached(*_):
        raise Reached

    monkeypatch.setattr(flow, "workspace", lambda *_: contextlib.nullcontext(space))
    monkeypatch.setattr(members, "members_at_once", lambda *_: 1)  # asks Ray what there is
    monkeypatch.setattr(members, "make_base", reached)
    with pytest.raises(ConfigError, match=r"sweep.rungs: 4 is too small.*\nTask rare.4: .* 5 or more"):
        flow.sweep(load_config(SweepConfig, write_rare(tmp_path, [4, None])))
    with pytest.raises(Reached):
        flow.sweep(load_config(SweepConfig, write_rare(tmp_path, [5, None])))
