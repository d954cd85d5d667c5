from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boom_ray.errors import TrainingError
from boom_ray.training.group import Group
from boom_ray.training.state import PROGRESS, restore, snapshot, write
from tests.training.loops import make_inputs, make_loop, on_workers, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("state"))


def save(loop, place: Path, rank: int = 0) -> Path:
    place.mkdir(exist_ok=True, parents=True)
    write(place, snapshot(loop.weights, loop.optimizer), loop.weights, loop.standing(), rank)
    return place


def train_and_save(folder: str, place: str, steps: int, when: str) -> dict:
    """One worker of a sharded member; leaves its file at the end or in the middle."""
    group = Group.current()
    loop = make_loop(Path(folder), group, parallelism="fsdp", ema=0.9, max_steps=steps)
    run(loop, lambda done: save(loop, Path(place), group.rank) if when == "middle" and done == steps // 2 else None)
    if when == "end":
        save(loop, Path(place), group.rank)
    return {"weights": loop.weights.full(averaged=True)}


def go_on(folder: str, place: str) -> dict:
    """Continue the member from a checkpoint with however many workers there are."""
    loop = make_loop(Path(folder), Group.current(), parallelism="fsdp", ema=0.9)
    loop.resume(restore(Path(place), loop.weights, loop.optimizer))
    return {"losses": run(loop), "weights": loop.weights.full(averaged=True)}


@pytest.mark.slow
def test_sharded_weights_continue_on_another_number_of_workers(folder, tmp_path, free_port):
    """At the end nothing changes any more; in the middle the rest is trained as one worker trains everything."""
    end, middle = tmp_path / "end", tmp_path / "middle"
    first = on_workers(train_and_save, 3, free_port, tmp_path / "first", str(folder), str(end), 16, "end")
    assert len(list(end.glob("state-*.safetensors"))) == 3
    again = on_workers(go_on, 2, free_port, tmp_path / "again", str(folder), str(end))
    assert again[0]["losses"] == []
    for name, value in first[0]["weights"].items():
        assert torch.equal(value, again[0]["weights"][name]), name
    on_workers(train_and_save, 3, free_port, tmp_path / "half", str(folder), str(middle), 16, "middle")
    shutil.copy(middle / "state-00002.safetensors", middle / "state-00003.safetensors")  # of an attempt of four
    rest = on_workers(go_on, 2, free_port, tmp_path / "rest", str(folder), str(middle))
    alone = make_loop(folder, ema=0.9)
    losses = run(alone)
    np.testing.assert_allclose(rest[0]["losses"], losses[8:], rtol=1e-4)
    for name, value in alone.weights.full(averaged=True).items():
        if not name.endswith("key.bias"):  # its gradient is rounding, which Adam makes steps of
            torch.testing.assert_close(rest[0]["weights"][name], value, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_other_weights_or_a_damaged_one_is_an_error(folder, tmp_path):
    loop = make_loop(folder, max_steps=1)
    run(loop)
    place = save(loop, tmp_path / "one")
    other = make_loop(folder, weight_decay=0.1)  # the same weights in another layout
    with pytest.raises(TrainingError, match="is of other weights"):
        restore(place, other.weights, other.optimizer)
    (place / PROGRESS).write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        restore(place, loop.weights, loop.optimizer)
    (place / PROGRESS).write_text(json.dumps({"layout": loop.weights.layout(), "files": 1}))
    (file,) = place.glob("state-*")
    file.write_bytes(file.read_bytes()[:-100])  # a disk that was full
    with pytest.raises(TrainingError, match="cannot be read: SafetensorError"):
        restore(place, loop.weights, loop.optimizer)
    file.unlink()
    with pytest.raises(TrainingError, match=r"cannot be read: FileNotFoundError: .*state-00000"):
        restore(place, loop.weights, loop.optimizer)


def test_a_snapshot_does_not_change_with_training(folder):
    loop = make_loop(folder, max_steps=2)
    kept: list[dict[str, torch.Tensor]] = []
    run(loop, lambda done: kept.append(snapshot(loop.weights, loop.optimizer)))
    before = {name: value.clone() for name, value in kept[0].items()}
    assert {name.split("/")[0] for name in before} == {"weight", "exp_avg", "exp_avg_sq"}
    run_on = snapshot(loop.weights, loop.optimizer)
    assert all(torch.equal(value, before[name]) for name, value in kept[0].items())
    assert not all(torch.equal(value, before[name]) for name, value in run_on.items())
