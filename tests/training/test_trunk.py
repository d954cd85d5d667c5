"""A branch is, bit for bit, the run without a trunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boom_ray.config import AverageLastConfig
from boom_ray.errors import TrainingError
from boom_ray.store import Store
from boom_ray.training.branches import branch_jobs
from boom_ray.training.group import Group
from boom_ray.training.job import TRUNK, MemberJob, TrunkJob
from boom_ray.training.loop import Loop
from boom_ray.training.trunk import begin, leave_trunk
from tests.training.loops import SETTINGS, make_inputs, make_loop, on_workers, run, weights
from tests.training.test_branches import make_job

SCHEDULE = {"decay_ratio": 0.25, "warmup_updates": 2, "final_ratio": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("trunk"))


def branches(**changes: Any) -> tuple[MemberJob, MemberJob]:
    """Members over 8 and all 16 steps of `make_loop`'s plan, whose trunks have 6 and 12."""
    short, whole = branch_jobs(make_job(**{**SETTINGS, **SCHEDULE, **changes}), {"short": 0.5, "whole": 1.0}, 16)
    return short, whole


def loop_of(folder: Path, job: MemberJob, group: Group | None = None) -> Loop:
    """A job's loop, from the base."""
    loop = make_loop(folder, group, **dict(job.training))
    if isinstance(job, TrunkJob):
        loop.plan = replace(loop.plan, stop=job.steps)
    return loop


def train(store: Store, folder: Path, job: MemberJob, group: Group | None = None) -> tuple[Loop, list[float]]:
    """Train a job as a worker does, from its trunk if it has one."""
    loop = loop_of(folder, job, group)
    if job.trunk is not None:
        begin(store, job.trunk, loop)
    losses = run(loop)
    if isinstance(job, TrunkJob):
        leave_trunk(store, job, loop, {"steps": job.steps})
    return loop, losses


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "accumulation": 2, "precision": "bfloat16"},
        {"average_last": AverageLastConfig(snapshots=2, share=0.2)},
        {"average_last": AverageLastConfig(snapshots=3, share=0.6), "dropout": 0.1},
        {"log_every": 5, "max_leap": 100.0, "layer_decay": 0.5},
        {"micro_batch_tokens": None},
    ],
    ids=["plain", "moving average", "mean", "mean from before the fall", "between log lines", "free memory"],
)
def test_a_branch_is_the_run_without_a_trunk(folder, tmp_path, changes):
    store = Store(tmp_path)
    short, whole = branches(**changes)
    for trunk in (short.trunk, whole.trunk):
        loop, _ = train(store, folder, trunk)
        assert loop.progress.step == trunk.steps
    for job in (whole, short):
        alone = loop_of(folder, job)
        every = run(alone)
        branch, losses = train(store, folder, job)
        assert 0 < len(losses) < len(every)
        assert losses == every[-len(losses) :]
        assert same(weights(alone), weights(branch))
        assert same(alone.left(), branch.left())
        assert alone.standing() == branch.standing()


def test_the_fall_makes_branches_of_a_trunk(folder, tmp_path):
    """That a branch is trained at all, and not only the trunk's plan a little further."""
    store = Store(tmp_path)
    short, whole = branches()
    train(store, folder, short.trunk)
    trunk, _ = train(store, folder, whole.trunk)
    branch, _ = train(store, folder, short)
    steady = loop_of(folder, replace(whole.trunk, steps=8))
    run(steady)
    assert not same(weights(steady), weights(branch))
    figures = store.get(TRUNK, whole.trunk.key)
    assert figures is not None
    assert figures.figures == {"steps": 12}
    assert set(figures.files) == {"state/progress.json", "state/state-00000.safetensors"}
    assert trunk.progress.curve[-1][0] == 12


def test_a_trunk_that_is_gone_is_an_error(folder, tmp_path):
    short, _ = branches()
    with pytest.raises(TrainingError, match=r"trunk-6~[0-9a-f]{6} is missing from .*; run the job again"):
        begin(Store(tmp_path), short.trunk, loop_of(folder, short))


def train_here(folder: str, store: str, which: str, parallelism: str, workers: int) -> dict[str, Any]:
    """One worker of a trunk or a branch."""
    _, whole = branches(parallelism=parallelism, resources={"workers": workers})
    trunk = replace(whole.trunk, trunk=None)  # from the base to its end
    job = {"trunk": trunk, "whole": whole}[which]
    loop, losses = train(Store(store), Path(folder), job, Group.current())
    return {"losses": losses, "weights": weights(loop)}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_workers_hand_a_trunk_to_others(folder, tmp_path, free_port, parallelism):
    store = tmp_path / "store"
    for which, workers in (("trunk", 3), ("whole", 2)):
        arguments = (str(folder), str(store), which, parallelism, workers)
        ranks = on_workers(train_here, workers, free_port, tmp_path / which, *arguments)
    assert len(list(store.glob("trunk/*/state/state-*"))) == (1 if parallelism == "ddp" else 3)
    assert not list(store.glob("training/*.shares"))
    alone = loop_of(folder, branches()[1])
    losses = run(alone)
    assert ranks[0]["losses"] == pytest.approx(losses[12:], rel=1e-4)
    for name, value in weights(alone).items():
        if not name.endswith("key.bias"):  # its gradient is rounding, which Adam makes steps of
            torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-3, atol=1e-5)
