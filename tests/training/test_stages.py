"""Loops over plans that are not plain batch-level shuffling: stages with rates of their own, and mixed steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.bags.schedules import Schedule, StageRule
from boom_ray.model.losses.policy import Facts, policy_of_step, step_loss
from boom_ray.model.texts import padded
from boom_ray.training.group import Group
from boom_ray.training.loop import Listeners, Loop
from boom_ray.training.state import restore, snapshot, write
from tests.training.loops import SETTINGS, ignore, make_inputs, make_loop, on_workers, run, weights

STAGES = Schedule("two-stage", stages=(StageRule("first", ("a",), 1, 2e-3), StageRule("all", ("a", "b"), 1, 5e-4)))
MIXING = Schedule("example-mixing")
NO_GRADIENT = "key.bias"  # attention does not depend on it: its gradient is rounding, which Adam makes steps of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("stages"))


def loop_of(folder: Path, schedule: Schedule, group: Group | None = None, **changes: Any) -> Loop:
    """A loop over one epoch of both datasets."""
    loop = make_loop(folder, group, **changes)
    corpus = {name: TokenDataset([folder / f"{name}.arrow"]) for name in "ab"}
    rows, ids = {n: np.arange(len(data)) for n, data in corpus.items()}, {n: data.ids for n, data in corpus.items()}
    plan = schedule.plan(rows, ids, loop.config.batch_size, 1, 1)
    reader = BatchReader(corpus, loop.config.negatives, 3, loop.group.rank, loop.group.workers)
    batch = {"steps": len(plan), "batch": lambda step: reader.read(*plan.parts(step)), "stages": plan.stages}
    loop.plan = replace(loop.plan, **batch)
    return loop


def rates(loop: Loop) -> dict[int, float]:
    """Finished steps to the rate of the last update."""
    found: dict[int, float] = {}
    loop.run(Listeners(lambda done, figures: found.update({done: figures["learning_rate"]}), ignore))
    return found


def test_each_stage_has_its_own_warm_up_peak_and_fall(folder):
    found = rates(loop_of(folder, STAGES, warmup_ratio=0.4))
    first = [0.5, 1.0, 1.0, 2 / 3, 1 / 3]  # of 5 steps, 2 of them warm-up
    second = [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]  # of 8 steps, 4 of them warm-up
    expected = [2e-3 * share for share in first] + [5e-4 * share for share in second]
    assert list(found) == list(range(1, 14))
    assert list(found.values()) == pytest.approx(expected)


def test_no_update_has_steps_of_two_stages(folder):
    found = rates(loop_of(folder, STAGES, accumulation=3, warmup_ratio=0.0))
    assert list(found) == [3, 5, 8, 11, 13]
    assert list(found.values()) == pytest.approx([2e-3, 1e-3, 5e-4, 5e-4 * 2 / 3, 5e-4 / 3])


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        (STAGES, {"dropout": 0.1}),
        (STAGES, {"accumulation": 3, "ema": 0.9, "precision": "bfloat16"}),
        (MIXING, {"dropout": 0.1, "accumulation": 2}),
    ],
    ids=["stages", "accumulated", "mixed"],
)
def test_a_run_cut_off_in_its_second_half_ends_with_the_same_bytes(folder, tmp_path, schedule, changes):
    whole, places = loop_of(folder, schedule, **changes), {}

    def keep(done: int) -> None:
        path = tmp_path / str(done)
        path.mkdir()
        write(path, snapshot(whole.weights, whole.optimizer), whole.weights, whole.standing(), 0)
        places[done] = path

    losses = run(whole, keep)
    middle = next(done for done in places if done > (5 if schedule is STAGES else 3))
    again = loop_of(folder, schedule, **changes)
    again.resume(restore(places[middle], again.weights, again.optimizer))
    assert again.progress.step == middle < again.plan.steps
    rest = run(again)
    assert rest == losses[-len(rest) :]
    for averaged in (True, False):
        one, other = whole.weights.full(averaged), again.weights.full(averaged)
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_stages_with_the_same_rates_differ_from_one_curve(folder):
    """The stage boundary alone changes what is learned: its end has a low rate, the next beginning a rising one."""
    plain = loop_of(folder, STAGES)
    plain.plan = replace(plain.plan, stages=())
    staged = loop_of(folder, STAGES)
    staged.plan = replace(staged.plan, stages=tuple(replace(one, learning_rate=None) for one in staged.plan.stages))
    first, second = rates(plain), rates(staged)
    assert max(first.values()) == max(second.values()) == SETTINGS["learning_rate"]
    assert first[5] != second[5]
    assert any(not torch.equal(value, weights(staged)[name]) for name, value in weights(plain).items())


def test_mixed_steps_train_as_plain_autograd_says(folder):
    loop, plain = (loop_of(folder, MIXING, warmup_ratio=0.25, max_grad_norm=0.5) for _ in range(2))
    assert loop.plan.steps == 8
    encoder = plain.encoder
    parameters = [one.detach().clone().requires_grad_() for one in encoder.trainable().values()]
    named = dict(zip(encoder.trainable(), parameters, strict=True))
    adam = torch.optim.AdamW(parameters, weight_decay=0.0)
    losses, mixtures = [], []
    for step in range(8):
        batch = plain.plan.batch(step)
        mixtures.append(len(batch.parts))
        vectors = torch.func.functional_call(encoder, named, (padded(batch.texts, encoder.pad_id),))[batch.index]
        loss = step_loss(vectors, Facts.of(batch), policy_of_step(batch.parts, plain.plan.policies))
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        for group in adam.param_groups:
            group["lr"] = 1e-3 * ((step + 1) / 2 if step < 2 else 1 - (step - 2) / 6)
        adam.step()
    assert set(mixtures) == {2}
    np.testing.assert_allclose(run(loop), losses, rtol=1e-4)
    for name, value in weights(loop).items():
        if not name.endswith(NO_GRADIENT):
            torch.testing.assert_close(value, named[name].detach(), rtol=1e-3, atol=1e-5)


def train_here(folder: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One worker's part of a member that is trained on mixed steps."""
    loop = loop_of(Path(folder), MIXING, Group.current(), **changes)
    return {"losses": run(loop), "weights": weights(loop)}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("workers", "changes"), [(3, {}), (2, {"parallelism": "fsdp"})], ids=["ddp", "fsdp"])
def test_workers_train_on_mixed_steps_as_one(folder, tmp_path, free_port, workers, changes):
    ranks = on_workers(train_here, workers, free_port, tmp_path / "out", str(folder), changes)
    one = loop_of(folder, MIXING)
    losses = run(one)
    for rank in ranks:
        np.testing.assert_allclose(rank["losses"], losses, rtol=1e-4)
    for name, value in weights(one).items():
        if not name.endswith(NO_GRADIENT):
            torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=1e-3, atol=1e-5)
