from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.plan import Plan
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.bags.schedules import batch_level_shuffling
from boom_ray.config import LoraConfig, ModelConfig, TrainingConfig
from boom_ray.errors import TrainingError
from boom_ray.model.encoder import Encoder, load_encoder
from boom_ray.model.losses import false_negatives, info_nce
from boom_ray.model.steps import pad
from boom_ray.training.group import Group
from boom_ray.training.loop import Loop
from boom_ray.training.state import load_state, save_state
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_tokens

SETTINGS = {"batch_size": 8, "negatives": 2, "precision": "float32", "temperature": 0.1, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("loop")
    make_tiny_model(path / "base")
    write_tokens(path / "a.arrow", "a", 40)
    write_tokens(path / "b.arrow", "b", 24, labels=3)
    return path


def make_loop(folder: Path, group: Group, config: TrainingConfig, lora: LoraConfig | None = None) -> Loop:
    torch.manual_seed(0)
    encoder = load_encoder(folder / "base", ModelConfig(lora=lora), dropout=config.dropout)
    corpus = {name: TokenDataset([folder / f"{name}.arrow"]) for name in "ab"}
    plan: Plan = batch_level_shuffling(
        {name: np.arange(len(data)) for name, data in corpus.items()},
        {name: data.ids for name, data in corpus.items()},
        config.batch_size,
        2,
        seed=1,
    )
    reader = BatchReader(corpus, {"a": True, "b": False}, config.negatives, 3, group.rank, group.workers)
    return Loop(encoder, len(plan), lambda index: reader.read(plan.step(index)), config, 3, group)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in encoder.trainable().items()}


def ignore(*_: object) -> None:
    pass


def test_gradients_equal_one_plain_forward_of_everything(folder):
    config = TrainingConfig(**SETTINGS, dropout=0.0, micro_batch_tokens=64)
    loop = make_loop(folder, Group(0, 1), config)
    for index in range(4):
        batch = loop.batch(index)
        loss = loop.backward(batch)
        ours = {name: parameter.grad.clone() for name, parameter in loop.parameters.items()}
        loop.optimizer.zero_grad()
        ids, mask = pad(batch.texts, loop.encoder.pad_id)
        vectors = loop.encoder(ids, mask)[batch.index]
        excluded = false_negatives(batch.query_keys, batch.known_positives, batch.candidate_keys, batch.labels)
        plain = info_nce(vectors[:, 0], vectors[:, 1:], batch.present, excluded if batch.in_batch else None, 0.1)
        plain.backward()
        assert loss == pytest.approx(plain.item(), rel=1e-5)
        for name, parameter in loop.parameters.items():
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)
        loop.optimizer.zero_grad()


def test_resume_is_bit_identical_with_dropout(folder, tmp_path):
    config = TrainingConfig(**SETTINGS, dropout=0.1, checkpoint_every=5, log_every=4)
    whole = make_loop(folder, Group(0, 1), config)
    states = []

    def keep(done: int) -> None:
        path = tmp_path / str(done)
        path.mkdir()
        save_state(path, whole.encoder, whole.optimizer, done)
        states.append(done)

    curve: list[int] = []
    whole.run(0, lambda done, figures: curve.append(done), keep)
    assert states == [5, 10, 15]
    assert curve == [4, 8, 12, 16]
    again = make_loop(folder, Group(0, 1), config)
    start, _ = load_state(tmp_path / "10", again.encoder, again.optimizer)
    again.run(start, ignore, ignore)
    for name, value in weights(whole.encoder).items():
        assert torch.equal(value, again.parameters[name]), name


def test_training_lowers_the_loss_and_lora_trains_only_adapters(folder):
    config = TrainingConfig(**{**SETTINGS, "learning_rate": 5e-3}, dropout=0.0, log_every=4)
    loop = make_loop(folder, Group(0, 1), config, LoraConfig(rank=4, alpha=8))
    assert all("lora" in name for name in loop.parameters)
    curve: list[float] = []
    loop.run(0, lambda done, figures: curve.append(figures["loss"]), ignore)
    assert curve[-1] < curve[0]


def test_a_loss_that_is_not_finite_names_step_dataset_and_examples(folder):
    loop = make_loop(folder, Group(0, 1), TrainingConfig(**SETTINGS))
    with torch.no_grad():
        next(iter(loop.parameters.values())).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"Step 0 gave loss nan.*dataset [ab], examples [0-9a-f]{16}"):
        loop.run(0, ignore, ignore)


def first_gradients(loop: Loop) -> dict[str, torch.Tensor]:
    """Gradients of the first step, summed over workers."""
    loop.backward(loop.batch(0))
    loop.group.sum_gradients(loop.parameters.values())
    result = {name: parameter.grad.clone() for name, parameter in loop.parameters.items()}
    loop.optimizer.zero_grad()
    return result


def train_as_rank(rank: int, workers: int, port: int, folder: Path, out: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    loop = make_loop(folder, Group.current(), TrainingConfig(**SETTINGS, dropout=0.0, log_every=1))
    gradients = first_gradients(loop)
    curve: list[float] = []
    loop.run(0, lambda done, figures: curve.append(figures["loss"]), ignore)
    torch.save({"curve": curve, "weights": weights(loop.encoder), "gradients": gradients}, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_train_as_one(folder, tmp_path, free_port):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=train_as_rank, args=(rank, 2, free_port, folder, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    one = make_loop(folder, Group(0, 1), TrainingConfig(**SETTINGS, dropout=0.0, log_every=1))
    gradients = first_gradients(one)
    curve: list[float] = []
    one.run(0, lambda done, figures: curve.append(figures["loss"]), ignore)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    np.testing.assert_allclose(ranks[0]["curve"], curve, rtol=1e-4)
    for name, value in gradients.items():
        assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name])
        torch.testing.assert_close(ranks[0]["gradients"][name], value, rtol=1e-4, atol=1e-6)
