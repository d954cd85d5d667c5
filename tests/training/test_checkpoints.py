"""What a member goes on from; Ray's side of it is in test_members."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train
import torch

from boom_ray.errors import TrainingError
from boom_ray.training import checkpoints
from boom_ray.training.checkpoints import Checkpoints
from boom_ray.training.state import snapshot, write
from tests.training.loops import make_inputs, make_loop, run, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def taken(folder, tmp_path, monkeypatch) -> dict[int, tuple[Path, dict[str, torch.Tensor]]]:
    """A run with checkpoints at steps 4, 8 and 12, as Ray Train would report it."""
    loop = make_loop(folder)
    found = {}

    def keep(done: int) -> None:
        if done % 4 == 0:
            place = tmp_path / f"step{done}"
            place.mkdir()
            write(place, snapshot(loop.weights, loop.optimizer), loop.weights, loop.standing(), 0)
            found[done] = (place, weights(loop))

    run(loop, keep)
    all_of_them = [ray.train.Checkpoint.from_directory(place) for place, _ in found.values()]
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: all_of_them[-1])
    reports = [SimpleNamespace(checkpoint=one) for one in all_of_them]
    monkeypatch.setattr(ray.train, "get_all_reported_checkpoints", lambda mode: reports)
    return found


def restored(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    loop = make_loop(folder)
    return Checkpoints(loop, loop.config).restore(), weights(loop)


def damage(place: Path) -> None:
    file = place / "state-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def test_the_last_one_is_taken(folder, taken):
    step, found = restored(folder)
    assert step == 12
    assert all(torch.equal(value, found[name]) for name, value in taken[12][1].items())


def test_one_that_cannot_be_read_gives_way_to_the_one_before(folder, taken, caplog):
    damage(taken[12][0])
    (taken[8][0] / "progress.json").unlink()
    step, found = restored(folder)
    assert step == 4
    assert all(torch.equal(value, found[name]) for name, value in taken[4][1].items())
    assert "step12 cannot be read" in caplog.text
    assert "step8 cannot be read" in caplog.text


def test_without_any_that_can_be_read_the_folder_is_named(folder, taken):
    for place, _ in taken.values():
        damage(place)
    with pytest.raises(TrainingError, match=r"There is no older one. Remove the folder .* and run again"):
        restored(folder)


def test_seconds_of_earlier_attempts_count(folder, taken, monkeypatch):
    """Up to the checkpoint; a trunk, which is left as the loop stands, does not know of them."""
    facts = json.loads((taken[12][0] / "progress.json").read_text())
    (taken[12][0] / "progress.json").write_text(json.dumps(facts | {"seconds": 50.0}))
    loop = make_loop(folder)
    again = Checkpoints(loop, loop.config, started=100.0)
    again.restore()
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 107.0))
    assert again.seconds() == 57.0
    assert loop.standing().seconds == 0.0
