"""The mean of a run's last weights: which it takes, and that it is exact whatever crashes and workers there are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.config import AverageLastConfig, RunConfig, TrainingConfig
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError
from boom_ray.training.average import mean, put, snapshot_updates
from boom_ray.training.group import Group
from boom_ray.training.state import restore, snapshot, write
from tests.training.loops import make_inputs, make_loop, on_workers, run, weights

HALF = AverageLastConfig(snapshots=3, share=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("average"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def exact_mean(many: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([one[name].double() for one in many]).mean(0).float() for name in many[0]}


@pytest.mark.parametrize(
    ("total", "snapshots", "share", "expected"),
    [
        (100, 4, 0.2, (85, 90, 95, 100)),
        (10, 2, 1.0, (5, 10)),
        (16, 3, 0.5, (10, 13, 16)),
        (10, 8, 0.3, (8, 9, 10)),
        (1, 2, 0.1, (1,)),
    ],
)
def test_snapshots_are_evenly_spread_over_the_last_updates(total, snapshots, share, expected):
    assert snapshot_updates(total, AverageLastConfig(snapshots=snapshots, share=share)) == expected


@given(st.integers(1, 5000), st.integers(2, 50), st.floats(0.001, 1))
def test_snapshots_end_the_run_rise_and_are_as_even_as_updates_allow(total, snapshots, share):
    found = snapshot_updates(total, AverageLastConfig(snapshots=snapshots, share=share))
    window = math.ceil(share * total)
    gaps = {after - before for before, after in zip((total - window, *found), found, strict=False)}
    assert found[-1] == total
    assert len(found) == min(snapshots, window)
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_without_the_section_there_are_none():
    assert snapshot_updates(100, None) == ()


def test_the_sum_is_in_float64_and_rounded_once():
    values = [torch.tensor([2.0**24, 1.0]), torch.tensor([1.0, 2.0**-23]), torch.tensor([1.0, 0.0])]
    total = torch.full((2,), 7.0, dtype=torch.float64)
    for number, one in enumerate(values):
        put(total, one, number == 0)
    assert mean(total, 3).tolist() == [5592406.0, torch.tensor((1 + 2**-23) / 3).item()]
    assert sum(value[0] for value in values).item() == 2**24  # float32 forgets the ones


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({}, (10, 13, 16)),
        ({"accumulation": 3, "precision": "bfloat16"}, (4, 5, 6)),
        ({"layer_decay": 0.5}, (10, 13, 16)),
    ],
    ids=["plain", "accumulated", "groups"],
)
def test_the_member_is_the_mean_of_its_last_weights(folder, changes, updates):
    loop = make_loop(folder, average_last=HALF, **changes)
    each = loop.config.accumulation
    seen: dict[int, dict[str, torch.Tensor]] = {}
    lefts: dict[int, dict[str, torch.Tensor]] = {}

    def keep(done: int) -> None:
        seen[-(-done // each)], lefts[-(-done // each)] = weights(loop), loop.left()

    run(loop, keep)
    keep(loop.plan.steps)
    for update, left in lefts.items():
        taken = [one for one in updates if one <= update]
        assert same(left, exact_mean([seen[one] for one in taken]) if taken else seen[update]), update
    assert not same(lefts[updates[-1]], seen[updates[-1]])
    plain = make_loop(folder, **changes)
    run(plain)
    assert same(weights(plain), weights(loop))  # looking at weights changes none


@pytest.mark.parametrize("middle", [4, 10, 12], ids=["before", "at a snapshot", "between"])
def test_resume_is_bit_identical(folder, tmp_path, middle):
    whole = make_loop(folder, average_last=HALF, dropout=0.1)

    def keep(done: int) -> None:
        if done == middle:
            write(tmp_path, snapshot(whole.weights, whole.optimizer), whole.weights, whole.standing(), 0)

    run(whole, keep)
    again = make_loop(folder, average_last=HALF, dropout=0.1)
    again.resume(restore(tmp_path, again.weights, again.optimizer))
    run(again)
    assert again.progress.step == 16
    assert same(whole.left(), again.left())


def train_here(folder: str, parallelism: str, place: str, continues: bool) -> dict[str, Any]:
    """One worker's part; the first time it leaves a checkpoint between two snapshots."""
    group = Group.current()
    loop = make_loop(Path(folder), group, average_last=HALF, parallelism=parallelism)
    if continues:
        loop.resume(restore(Path(place), loop.weights, loop.optimizer))
    seen = []

    def keep(done: int) -> None:
        if done in loop.snapshots:
            seen.append(weights(loop))
        if done == 12 and not continues and group.rank < loop.weights.holders:
            Path(place).mkdir(exist_ok=True)
            write(Path(place), snapshot(loop.weights, loop.optimizer), loop.weights, loop.standing(), group.rank)

    run(loop, keep)
    keep(16)
    return {"left": loop.left(), "seen": seen}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_workers_average_as_one_and_go_on_as_others(folder, tmp_path, free_port, parallelism):
    how = (str(folder), parallelism, str(tmp_path / "state"))
    ranks = on_workers(train_here, 3, free_port, tmp_path / "out", *how, False)
    assert same(ranks[0]["left"], exact_mean(ranks[0]["seen"]))
    again = on_workers(train_here, 2, free_port, tmp_path / "again", *how, True)
    alone = make_loop(folder, average_last=HALF)
    run(alone)
    for name, value in alone.left().items():
        if not name.endswith("key.bias"):  # its gradient is rounding, which Adam makes steps of
            torch.testing.assert_close(ranks[0]["left"][name], value, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(again[0]["left"][name], value, rtol=1e-3, atol=1e-5)


def test_it_is_in_the_key_only_where_it_is_set():
    assert "average_last" not in TrainingConfig().identity()
    assert TrainingConfig(average_last=HALF).identity()["average_last"] == {"snapshots": 3, "share": 0.5}
    assert TrainingConfig(average_last=HALF).identity().keys() - TrainingConfig().identity().keys() == {"average_last"}


def test_a_member_is_one_average():
    corpus = {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "retrieval"}]}
    training = {"ema": 0.9, "average_last": {"snapshots": 4}}
    with pytest.raises(ConfigError, match=r"training\.average_last: .*set either ema or average_last"):
        validate(RunConfig, {"name": "r", "corpus": corpus, "training": training}, "run.yaml")
