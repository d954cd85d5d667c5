"""Steps of several datasets: every part under its own loss, in-batch negatives from the whole step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config.loss import DIRECTIONS
from boom_ray.model.losses import Facts, loss_and_gradient, step_loss
from boom_ray.model.losses.infonce import info_nce
from boom_ray.model.losses.matryoshka import Matryoshka
from boom_ray.model.losses.policy import policy_of_step
from tests.model.losses.world import distinct, policy, random_vectors, steps, unit

POLICIES = {
    "search": policy(directions=DIRECTIONS),
    "labelled": policy(in_batch=False, temperature=0.1),
    "graded": policy(kind="cosent"),
    "angled": policy(kind="angle"),
    "taught": policy(kind="kl", contrastive_weight=0.5),
    "spread": policy(kind="margin_mse", contrastive_weight=0.0),
}
PARTS = [("search", 3), ("labelled", 2), ("graded", 3), ("angled", 2), ("taught", 3), ("spread", 2)]
COUNT = sum(count for _, count in PARTS)
NEGATIVES = 2


def make_facts(texts=None) -> Facts:
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(COUNT, generator=generator).tolist()
    teacher = torch.randn(COUNT, 1 + NEGATIVES, generator=generator).tolist()
    return (texts or distinct(COUNT, NEGATIVES)).facts(scores=scores, teacher=teacher)


def cut(facts: Facts, part: slice) -> Facts:
    return Facts(**{name: None if value is None else value[part] for name, value in vars(facts).items()})


def test_the_loss_is_the_mean_over_examples_of_what_their_datasets_say():
    vectors, facts = random_vectors(COUNT, NEGATIVES), make_facts()
    queries, passages = (one.float() for one in unit(vectors))
    expected, start = 0.0, 0
    for name, count in PARTS:
        own, part = POLICIES[name], slice(start, start + count)
        if own.kind == "infonce":
            expected += info_nce(queries, passages.contiguous(), facts, own)[part].sum().item() / COUNT
        else:
            alone = policy(kind=own.kind, temperature=own.temperature)  # without the contrastive share
            expected += count / COUNT * step_loss(vectors[part], cut(facts, part), alone).item()
            rows = info_nce(queries, passages.contiguous(), facts, own)[part]
            expected += own.contrastive_weight * rows.sum().item() / COUNT
        start += count
    found = step_loss(vectors, facts, policy_of_step(PARTS, POLICIES))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@given(texts=steps(6), seed=st.integers(0, 99), rows=st.integers(1, 6), first=st.integers(0, 6))
@settings(deadline=None, max_examples=40)
def test_parts_of_one_loss_are_the_step_without_parts(texts, seed, rows, first):
    count, group = len(texts.queries), len(texts.passages[0])
    vectors, facts, own = random_vectors(count, group - 1, seed=seed), texts.facts(), policy(directions=DIRECTIONS)
    first = min(first, count)
    parts = policy_of_step([("one", first), ("other", count - first)], {"one": own, "other": own})
    loss, gradient = loss_and_gradient(vectors, facts, parts, score_elements=rows * count * group)
    whole, slope = loss_and_gradient(vectors, facts, own)
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
def test_a_single_part_is_the_dataset_s_loss_bit_for_bit(name):
    vectors, facts = random_vectors(COUNT, NEGATIVES), make_facts()
    assert policy_of_step([(name, COUNT)], POLICIES) == POLICIES[name]
    plain = loss_and_gradient(vectors, facts, POLICIES[name])
    mixed = loss_and_gradient(vectors, facts, ((slice(0, COUNT), POLICIES[name]),))
    assert all(torch.equal(one, other) for one, other in zip(plain, mixed, strict=True))


@pytest.mark.parametrize("matryoshka", [None, Matryoshka((6, 3), (1.0, 0.5))])
def test_gradients_are_those_of_the_loss(matryoshka):
    vectors, facts = random_vectors(COUNT, NEGATIVES).requires_grad_(), make_facts()
    parts = policy_of_step(PARTS, POLICIES)
    loss = step_loss(vectors, facts, parts, matryoshka)
    (slope,) = torch.autograd.grad(loss, vectors)
    blocks, gradient = loss_and_gradient(vectors.detach(), facts, parts, matryoshka, 2 * COUNT * (1 + NEGATIVES))
    torch.testing.assert_close(blocks, loss.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


def test_negatives_come_from_other_datasets_only_where_the_loss_takes_in_batch_ones():
    facts = make_facts()

    def reacts(own: str) -> bool:
        """Whether the first part's loss sees a passage of the second."""
        parts = policy_of_step([(own, 3), ("spread", COUNT - 3)], POLICIES)
        vectors = random_vectors(COUNT, NEGATIVES)
        moved = vectors.clone()
        moved[5, 1] = vectors[0, 0]  # now a perfect answer to the first query
        alone = Facts(**vars(facts) | {"teacher": None})
        return step_loss(vectors, alone, parts).item() != step_loss(moved, alone, parts).item()

    assert {own: reacts(own) for own in ("search", "labelled", "graded")} == {
        "search": True,
        "labelled": False,
        "graded": False,
    }
