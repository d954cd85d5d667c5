from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boom_ray.config import LoraConfig, MatryoshkaConfig, ModelConfig, ResourcesConfig
from boom_ray.errors import ModelError, TrainingError
from boom_ray.training.group import Group
from boom_ray.training.loop import Listeners
from boom_ray.training.state import restore, snapshot, write
from tests.training.loops import ignore, make_inputs, make_loop, on_workers, run, weights

NO_GRADIENT = "key.bias"  # attention does not depend on it: its gradient is rounding, which Adam makes steps of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("loop"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_curve_is_that_of_plain_autograd_and_adamw(folder):
    """Independent of micro-batches, flat arrays, hooks and the embedding's own gradient."""
    loop = make_loop(folder, weight_decay=0.1, warmup_ratio=0.25, max_grad_norm=0.5)
    from boom_ray.model.losses.policy import Facts, step_loss
    from boom_ray.model.texts import padded

    plain = make_loop(folder, weight_decay=0.1)
    encoder = plain.encoder
    parameters = [one.detach().clone().requires_grad_() for one in encoder.trainable().values()]
    named = dict(zip(encoder.trainable(), parameters, strict=True))
    decayed = [one for one in parameters if one.ndim > 1]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": [one for one in parameters if one.ndim <= 1]}],
        weight_decay=0.0,
    )
    losses = []
    for step in range(plain.plan.steps):
        batch = plain.plan.batch(step)
        texts = padded(batch.texts, encoder.pad_id)
        vectors = torch.func.functional_call(encoder, named, (texts,))[batch.index]
        loss = step_loss(vectors, Facts.of(batch), plain.plan.policies[batch.dataset])
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        for group in adam.param_groups:
            group["lr"] = 1e-3 * ((step + 1) / 4 if step < 4 else 1 - (step - 4) / 12)
        adam.step()
    np.testing.assert_allclose(run(loop), losses, rtol=1e-4)
    for name, value in weights(loop).items():
        if not name.endswith(NO_GRADIENT):
            torch.testing.assert_close(value, named[name].detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1},
        {"precision": "bfloat16", "ema": 0.9, "accumulation": 3},
        {"max_leap": 100.0, "layer_decay": 0.5, "decay": "wsd", "decay_ratio": 0.5},
        {"matryoshka": MatryoshkaConfig(dimensions=(32, 8))},
        {"log_every": 5},
    ],
    ids=["dropout", "averages", "leaps", "matryoshka", "between log lines"],
)
def test_resume_is_bit_identical(folder, tmp_path, changes):
    whole = make_loop(folder, **changes)
    places = {}

    def keep(done: int) -> None:
        path = tmp_path / str(done)
        path.mkdir()
        write(path, snapshot(whole.weights, whole.optimizer), whole.weights, whole.standing(), 0)
        places[done] = path

    losses = run(whole, keep)
    middle = sorted(places)[len(places) // 2]
    again = make_loop(folder, **changes)
    again.resume(restore(places[middle], again.weights, again.optimizer))
    assert again.progress.step == middle
    rest = run(again)
    assert rest == losses[-len(rest) :]
    assert same(whole.weights.full(averaged=True), again.weights.full(averaged=True))
    assert same(weights(whole), weights(again))
    assert again.progress.curve == whole.progress.curve


def test_resume_keeps_the_size_of_forward_passes_whatever_memory_is_free_then(folder, tmp_path):
    whole = make_loop(folder, micro_batch_tokens=None, resources=ResourcesConfig(memory_gb_per_worker=1e-6))
    assert whole.settings.micro_batch_tokens == 16  # one text

    def keep(done: int) -> None:
        if done == 8:
            write(tmp_path, snapshot(whole.weights, whole.optimizer), whole.weights, whole.standing(), 0)

    losses = run(whole, keep)
    again = make_loop(folder, micro_batch_tokens=None)
    assert again.settings.micro_batch_tokens == 2048
    again.resume(restore(tmp_path, again.weights, again.optimizer))
    assert again.settings.micro_batch_tokens == 16
    assert run(again) == losses[8:]
    assert same(weights(whole), weights(again))


def test_with_dropout_forward_passes_do_not_follow_memory(folder):
    resources = ResourcesConfig(memory_gb_per_worker=1e-6)
    loop = make_loop(folder, micro_batch_tokens=None, dropout=0.1, resources=resources)
    assert (loop.settings.micro_batch_tokens, loop.settings.kept_tokens) == (2048, 0)


def test_what_is_kept_in_memory_changes_no_bit(folder):
    kept = [
        weights(loop) for loop in (make_loop(folder, kept_tokens=n, dropout=0.1) for n in (0, 100, 10**9)) if run(loop)
    ]
    assert same(kept[0], kept[1])
    assert same(kept[0], kept[2])


def test_bfloat16_trains_close_to_float32_with_float32_masters(folder):
    exact, rounded = make_loop(folder), make_loop(folder, precision="bfloat16")
    assert {one.dtype for one in rounded.encoder.parameters()} == {torch.bfloat16}
    np.testing.assert_allclose(run(rounded), run(exact), rtol=0.1)
    masters, compute = weights(rounded), rounded.encoder.trainable()
    assert all(value.dtype == torch.float32 for value in masters.values())
    assert all(torch.equal(compute[name], value.bfloat16()) for name, value in masters.items())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in masters.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_decay": ("nothing.*",)}, "no_decay"),
        ({"matryoshka": MatryoshkaConfig(dimensions=(33, 8))}, "matryoshka.dimensions has 33; the model's embeddings"),
    ],
)
def test_what_does_not_fit_the_model_is_found_before_workers_wait_for_each_other(folder, changes, message):
    with pytest.raises(ModelError, match=message):
        make_loop(folder, **changes)


def test_lora_trains_only_adapters_and_lowers_the_loss(folder):
    loop = make_loop(folder, model=ModelConfig(lora=LoraConfig(rank=4, alpha=8)), learning_rate=5e-3)
    assert all("lora" in name for name in weights(loop))
    frozen = loop.encoder.core.embeddings.word_embeddings.weight.clone()
    losses = run(loop)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert torch.equal(frozen, loop.encoder.core.embeddings.word_embeddings.weight)


def test_accumulated_steps_make_one_update_of_their_mean_gradient(folder):
    free = {"warmup_ratio": 0.0, "max_grad_norm": 1e9}  # clipping would divide what is left in the gradients
    one = make_loop(folder, max_steps=4, accumulation=4, **free)
    gradients = []
    for step in range(4):
        alone = make_loop(folder, **free)
        alone.progress.step = step
        alone.plan = type(alone.plan)(step + 1, alone.plan.batch, alone.plan.policies, 16)
        alone.optimizer.step = ignore
        run(alone)
        gradients.append([flat.grad.clone() for flat in alone.weights.flats])
    assert len(run(one)) == 1
    for place, flat in enumerate(one.weights.flats):
        torch.testing.assert_close(flat.grad, sum(each[place] for each in gradients) / 4, rtol=1e-4, atol=1e-7)


def test_the_average_is_what_is_left(folder):
    loop = make_loop(folder, ema=0.5, max_steps=2)
    seen = [weights(loop)]
    run(loop, lambda done: seen.append(weights(loop)))
    seen.append(weights(loop))
    for name, value in loop.weights.full(averaged=True).items():
        torch.testing.assert_close(value, 0.25 * seen[0][name] + 0.25 * seen[1][name] + 0.5 * seen[2][name])


def test_figures_have_every_signal(folder):
    found: list[dict[str, float]] = []
    loop = make_loop(folder, log_every=8)
    loop.run(Listeners(lambda done, figures: found.append({"done": done, **figures}), ignore))
    assert [figures["done"] for figures in found] == [8, 16]
    figures = found[-1]
    assert {"loss", "loss/a", "loss/b", "grad_norm", "learning_rate", "pairs_per_s", "tokens_per_s"} < figures.keys()
    assert 0 <= figures["padding_share"] < 0.5
    parts = {name: value for name, value in figures.items() if name.startswith("time/")}
    assert {name.removeprefix("time/") for name in parts} == {
        *("data", "forward", "loss", "backward", "communication", "update")
    }
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["time/forward"] > 0


def poison(loop: Any) -> None:
    """Step 3 gives NaN."""
    forward = loop.encoder.forward
    loop.encoder.forward = lambda texts: forward(texts) * (float("nan") if loop.progress.step == 3 else 1.0)


def test_a_bad_step_stops_with_its_examples_and_changes_nothing(folder):
    loop = make_loop(folder)
    poison(loop)
    seen: dict[int, Any] = {}
    with pytest.raises(TrainingError) as error:
        run(loop, lambda done: seen.update({done: weights(loop)}))
    batch = make_loop(folder).plan.batch(3)
    assert "Step 3 gave loss nan" in str(error.value)
    assert f"on dataset {batch.dataset}, examples {int(batch.ids[0]):016x}, " in str(error.value)
    assert same(seen[3], weights(loop))


def test_a_bad_step_is_skipped_if_wanted(folder):
    loop = make_loop(folder, on_bad_step="skip", ema=0.5, max_leap=100.0)
    poison(loop)
    seen: dict[int, Any] = {}
    averages: dict[int, Any] = {}

    def keep(done: int) -> None:
        seen[done], averages[done] = weights(loop), loop.weights.full(averaged=True)

    run(loop, keep)
    assert same(seen[3], seen[4])
    assert same(averages[3], averages[4])
    assert not same(averages[4], averages[5])
    assert not same(seen[4], seen[5])
    assert loop.progress.skipped == 1
    assert float(next(iter(loop.optimizer.state.values()))["step"]) == loop.plan.steps - 1
    assert all(torch.isfinite(value).all() for value in weights(loop).values())


def train_here(folder: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One worker's part of a member, from gradients of the first step to the end."""
    group = Group.current()
    loop = make_loop(Path(folder), group, **changes)
    losses = run(loop)
    return {"losses": losses, "weights": weights(loop), "kind": type(loop.weights).__name__}


CASES = {
    "two": (2, {}),
    "four": (4, {}),
    "uneven": (3, {}),
    "bfloat16": (2, {"precision": "bfloat16"}),
    "fsdp": (2, {"parallelism": "fsdp"}),
    "fsdp-uneven": (3, {"parallelism": "fsdp", "kept_tokens": 0, "ema": 0.5, "accumulation": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_workers_train_as_one(folder, tmp_path, free_port, case):
    workers, changes = CASES[case]
    ranks = on_workers(train_here, workers, free_port, tmp_path / "out", str(folder), changes)
    one = make_loop(folder, **{**changes, "parallelism": "ddp"})
    losses = run(one)
    assert {rank["kind"] for rank in ranks} == {"Sharded" if changes.get("parallelism") == "fsdp" else "Replicated"}
    loose = changes.get("precision") == "bfloat16"
    for rank in ranks:
        assert rank["losses"] == ranks[0]["losses"]
        np.testing.assert_allclose(rank["losses"], losses, rtol=0.05 if loose else 1e-4)
    for name, value in weights(one).items():
        if not name.endswith(NO_GRADIENT):
            close = {"rtol": 1e-2, "atol": 5e-3} if loose else {"rtol": 1e-3, "atol": 1e-5}
            torch.testing.assert_close(ranks[0]["weights"][name], value, **close)
    if changes.get("parallelism") != "fsdp":
        assert all(same(rank["weights"], ranks[0]["weights"]) for rank in ranks)
