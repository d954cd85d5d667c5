from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from boom_ray.artifacts.batches import Batch
from boom_ray.config import DatasetConfig, LossConfig
from boom_ray.config.loss import DIRECTIONS, KINDS
from boom_ray.model.losses import Facts, Matryoshka, Policy, loss_and_gradient, policy_of, resolve_policy, step_loss
from tests.model.losses.world import distinct, policy, random_vectors, steps

SCORES = [0.1, 0.4, 0.4, 0.9, 1.0, 0.3]
POLICIES = [
    policy(),
    policy(directions=DIRECTIONS, margin=0.2),
    policy(directions=DIRECTIONS[:2], partition="per_direction"),
    policy(in_batch=False),
    policy(kind="cosent"),
    policy(kind="angle"),
    policy(kind="kl", contrastive_weight=0.5, directions=DIRECTIONS),
    policy(kind="margin_mse", contrastive_weight=1.0),
]
each_policy = pytest.mark.parametrize("chosen", POLICIES, ids=lambda one: f"{one.kind}-{len(one.directions)}")


def facts_of(texts) -> Facts:
    count, group = len(texts.queries), len(texts.passages[0])
    teacher = torch.randn(count, group, generator=torch.Generator().manual_seed(9)).tolist()
    return texts.facts(scores=SCORES[:count], teacher=teacher)


def permuted(facts: Facts, order: torch.Tensor) -> Facts:
    return Facts(**{name: None if value is None else value[order] for name, value in vars(facts).items()})


@each_policy
@given(texts=steps(6), seed=st.integers(0, 99), rows=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_blocks_change_nothing(chosen, texts, seed, rows):
    count, group = len(texts.queries), len(texts.passages[0])
    vectors, facts = random_vectors(count, group - 1, seed=seed).requires_grad_(), facts_of(texts)
    loss = step_loss(vectors, facts, chosen)
    (slope,) = torch.autograd.grad(loss, vectors)
    blocks, gradient = loss_and_gradient(vectors, facts, chosen, score_elements=rows * count * group)
    assert not blocks.requires_grad
    torch.testing.assert_close(blocks, loss.detach(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-5)


@each_policy
@given(texts=steps(6), seed=st.integers(0, 99), data=st.data())
@settings(deadline=None, max_examples=40)
def test_the_order_of_the_examples_is_that_of_the_gradients(chosen, texts, seed, data):
    order = torch.tensor(data.draw(st.permutations(range(len(texts.queries)))))
    vectors, facts = random_vectors(len(order), len(texts.passages[0]) - 1, seed=seed), facts_of(texts)
    loss, gradient = loss_and_gradient(vectors, facts, chosen)
    other, slope = loss_and_gradient(vectors[order], permuted(facts, order), chosen)
    torch.testing.assert_close(other, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope, gradient[order], rtol=1e-4, atol=1e-4)


@each_policy
def test_lengths_do_not_matter_and_every_type_gives_float32(chosen):
    vectors, facts = random_vectors(6, 2), facts_of(distinct(6, 2))
    loss, gradient = loss_and_gradient(vectors, facts, chosen)
    longer, _ = loss_and_gradient(vectors * torch.rand(6, 4, 1).add(0.5), facts, chosen)
    torch.testing.assert_close(longer, loss, rtol=1e-4, atol=1e-5)
    half, slope = loss_and_gradient(vectors.bfloat16(), facts, chosen)
    same, exact = loss_and_gradient(vectors.bfloat16().float(), facts, chosen)
    assert half.dtype == slope.dtype == step_loss(vectors.bfloat16(), facts, chosen).dtype == torch.float32
    assert torch.equal(half, same)
    assert torch.equal(slope, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        under, _ = loss_and_gradient(vectors, facts, chosen)
    assert torch.equal(under, loss)
    assert gradient.shape == vectors.shape


@each_policy
@pytest.mark.parametrize("matryoshka", [None, Matryoshka((6, 3), (1.0, 0.5))])
def test_nothing_depends_on_a_value_that_the_host_would_wait_for(chosen, matryoshka):
    """Fake tensors have no values: asking for one raises."""
    facts = facts_of(distinct(6, 2))
    with FakeTensorMode() as mode:
        fakes = {name: None if value is None else mode.from_tensor(value) for name, value in vars(facts).items()}
        loss, gradient = loss_and_gradient(torch.empty(6, 4, 6), Facts(**fakes), chosen, matryoshka, 2 * 6 * 3)
        with pytest.raises(DataDependentOutputException):
            loss.item()
    assert gradient.shape == (6, 4, 6)


@each_policy
@pytest.mark.parametrize("vector", [torch.zeros(6), torch.ones(6), torch.full((6,), 1e-30)])
def test_degenerate_steps_are_finite(chosen, vector):
    for count, negatives in ((1, 0), (3, 0), (3, 1)):
        texts = distinct(count, negatives)
        alike = replace(texts, queries=["q"] * count, labels=["x"] * count)
        for one in (texts, alike):
            vectors = vector.expand(count, 2 + negatives, 6)
            loss, gradient = loss_and_gradient(vectors, facts_of(one), chosen)
            assert loss.isfinite()
            assert not gradient.isnan().any()


def test_facts_of_a_batch_are_its_fields():
    tensors = {name: torch.tensor([number]) for number, name in enumerate(vars(facts_of(distinct(1, 0))))}
    rest = {"dataset": "d", "size": 1, "ids": None, "texts": [], "index": None}
    facts = Facts.of(Batch(**rest, **tensors | {"labels": None}))
    assert vars(facts) == tensors | {"labels": None}
    moved = facts.to("meta")
    assert moved.present.is_meta
    assert moved.labels is None


def dataset(task_type="retrieval", in_batch=None, **loss) -> DatasetConfig:
    return DatasetConfig(name="d", source="s", task_type=task_type, in_batch=in_batch, loss=LossConfig(**loss))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [None, 0.3])
def test_temperatures(kind, own):
    if kind == "margin_mse":
        assert policy_of(dataset(kind=kind), 0.02).temperature == 0.02
    else:
        usual = {"infonce": 0.02, "kl": 0.02, "cosent": 0.05, "angle": 0.05}[kind]
        assert policy_of(dataset(kind=kind, temperature=own), 0.02).temperature == (own or usual)


def test_equal_losses_have_equal_policies_which_are_json():
    one = dataset(directions=DIRECTIONS, mask=("positives", "labels"), margin=0.1)
    other = dataset(directions=DIRECTIONS[::-1], mask=("labels", "positives"), margin=0.1)
    found = policy_of(one, 0.02)
    assert found == policy_of(other, 0.02) == resolve_policy(one.loss, True, 0.02)
    assert json.loads(json.dumps(found.identity())) == found.identity()
    assert found.identity() == {
        "kind": "infonce",
        "temperature": 0.02,
        "in_batch": True,
        "directions": list(DIRECTIONS),
        "partition": "joint",
        "mask": ["positives", "labels"],
        "margin": 0.1,
        "teacher_temperature": 1.0,
        "contrastive_weight": 0.0,
    }


def test_in_batch_is_the_datasets():
    assert [policy_of(dataset(task), 1.0).in_batch for task in ("sts", "classification")] == [True, False]
    assert isinstance(policy_of(dataset("clustering", in_batch=True), 1.0), Policy)
    assert policy_of(dataset("clustering", in_batch=True), 1.0).in_batch
