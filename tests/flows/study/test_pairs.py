"""Tiny trainings on one dataset or two, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan
from boom_ray.bags.schedules import batch_level_shuffling
from boom_ray.config import DatasetConfig, ModelConfig, TrainingConfig
from boom_ray.errors import DataError
from boom_ray.flows.study.pairs import Bench, PairsJob, divide, shortened
from boom_ray.hashing import mix64
from boom_ray.model.encoder import load_encoder
from boom_ray.model.losses.policy import policy_of
from boom_ray.store import Artifact, Store
from boom_ray.training.job import MemberJob
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_corpus

SIZES = {"a": 40, "b": 30, "c": 9}
KINDS = {"a": "retrieval", "b": "classification", "c": "sts"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("pairs") / "store")


def bag_of_everything(store: Store, sizes: dict[str, int], batch: int) -> Artifact:
    """A bag as the stage leaves it."""

    def build(draft) -> None:
        rows = {name: np.arange(size) for name, size in sizes.items()}
        ids = {name: np.arange(size, dtype=np.uint64) for name, size in sizes.items()}
        plan: Plan = batch_level_shuffling(rows, ids, batch, 1, 0)
        plan.save(draft.path)
        for index, name in enumerate(sorted(sizes)):
            np.save(draft.path / f"rows-{index}.npy", rows[name])
        draft.figures |= {"datasets": sorted(sizes), "examples": sizes}

    return store.materialize("bag", {"sizes": sizes, "batch": batch}, {}, build)


@pytest.fixture
def job(store, tmp_path_factory) -> PairsJob:
    base = Path(store.root).parent / "base"
    if not base.exists():
        make_tiny_model(base)
    training = TrainingConfig(batch_size=4, negatives=1, precision="float32", learning_rate=1e-2, temperature=0.1)
    parts = write_corpus(store, SIZES)
    bag = bag_of_everything(store, SIZES, 4)
    policies = {
        name: policy_of(DatasetConfig(name=name, source="-", task_type=kind), 0.1) for name, kind in KINDS.items()
    }
    member = MemberJob(
        name="everything", bag=bag.fingerprint, bag_key=bag.key, corpus="c", parts=parts, policies=policies, base="b",
        base_place=str(base), model=ModelConfig(base=str(base)), training=training, seed=3, prompts={}, max_tokens=64,
        longest=16,
    )  # fmt: skip
    return PairsJob(member, steps=6, examples=8)


@given(st.integers(1, 60), st.integers(2, 20), st.integers(1, 12), st.integers(0, 99))
def test_what_is_measured_is_not_trained_on_where_there_is_enough(size, examples, batch, key):
    ids = mix64(np.arange(100, dtype=np.uint64), 5)
    rows = np.arange(0, 100, 100 // size)[:size]
    measured, trained = divide(ids, rows, examples, batch, key)
    assert len(measured) == min(max(2, min(examples, size // 4)), size)
    assert set(measured) <= set(rows)
    if size - len(measured) >= batch:
        assert sorted([*measured, *trained]) == rows.tolist()
    else:
        assert trained.tolist() == rows.tolist()
    turned = divide(ids[::-1].copy(), 99 - rows, examples, batch, key)
    assert ids[measured].tolist() == ids[::-1][turned[0]].tolist()  # ids decide, not rows


def test_a_dataset_has_the_same_steps_alone_and_beside_another(store, job):
    bench = Bench(store, job)

    def own(plan: Plan, name: str) -> list[tuple[int, list[int]]]:
        every = [plan.step(index) for index in range(len(plan))]
        return [(step.epoch, step.rows.tolist()) for step in every if step.dataset == name]

    alone, pair = bench._plan(["a"]), bench._plan(["a", "b"])
    assert (len(alone), len(pair)) == (6, 12)
    assert sorted(own(alone, "a")) == sorted(own(pair, "a"))
    assert sorted(own(bench._plan(["b"]), "b")) == sorted(own(bench._plan(["c", "b"]), "b"))
    assert {epoch for epoch, _ in own(bench._plan(["c"]), "c")} == {0, 1, 2, 3, 4, 5}  # 7 examples: one batch a pass
    trained = {row for _, rows in own(pair, "a") for row in rows}
    assert not trained & set(bench.divisions["a"][0].tolist())


def test_losses_are_those_of_the_trained_model_and_every_training_begins_at_the_base(store, job):
    bench = Bench(store, job)
    before = bench._measure("a")
    first = bench.losses(["a"])
    assert first["a"] < before
    joint = bench.losses(["b", "a"])
    assert set(joint) == {"a", "b"}
    assert bench.losses(["a"]) == first
    assert Bench(store, job).losses(["a", "b"]) == joint  # neither what was before nor the order matters


def test_nothing_learnt_is_the_loss_of_the_base(store, job):
    still = replace(
        job, member=replace(job.member, training=job.member.training.model_copy(update={"learning_rate": 0}))
    )
    bench = Bench(store, still)
    assert bench.losses(["a", "b"]) == {name: bench._measure(name) for name in "ab"}
    encoder = load_encoder(Path(job.member.base_place), job.member.model)
    for name, value in bench.measured.named_parameters():
        assert torch.equal(value, dict(encoder.named_parameters())[name])


def test_averages_stages_and_files_of_the_member_do_not_count(store, job):
    odd = TrainingConfig(
        **{**job.member.training.model_dump(), "ema": 0.99, "max_steps": 1, "decay": "wsd", "warmup_updates": 500}
    )
    short = shortened(odd)
    assert (short.ema, short.max_steps, short.warmup_updates, short.checkpoint_every) == (None, None, None, None)
    losses = Bench(store, replace(job, member=replace(job.member, training=odd))).losses(["a"])
    plain = TrainingConfig(**{**job.member.training.model_dump(), "decay": "wsd"})
    assert losses == Bench(store, replace(job, member=replace(job.member, training=plain))).losses(["a"])


def test_a_dataset_smaller_than_a_batch_is_named(store, job):
    training = job.member.training.model_copy(update={"batch_size": 16})
    with pytest.raises(DataError, match=r"Dataset c has 9 examples, fewer than training\.batch_size=16"):
        Bench(store, replace(job, member=replace(job.member, training=training)))
