from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
from sentence_transformers.util import pairwise_cos_sim

from boom_ray.model.losses import loss_and_gradient
from boom_ray.model.losses.distill import kl, margin_mse
from tests.model.losses.world import Given, Texts, columns, distinct, policy, random_vectors

NAN = math.nan


def teacher_of(count: int, negatives: int, seed: int = 5) -> list[list[float]]:
    return (torch.randn(count, 1 + negatives, generator=torch.Generator().manual_seed(seed)) * 2).tolist()


@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(1.0, 1.0), (0.05, 1.0), (0.2, 3.0)])
def test_kl_is_sentence_transformers_loss_by_the_square_of_the_temperature(temperature, teacher_temperature):
    vectors, teacher = random_vectors(5, 3).requires_grad_(), teacher_of(5, 3)
    theirs = DistillKLDivLoss(
        Given(6), pairwise_cos_sim, student_temperature=temperature, teacher_temperature=teacher_temperature
    )
    expected = theirs.compute_loss_from_embeddings(columns(vectors), torch.tensor(teacher)) / temperature**2
    (slope,) = torch.autograd.grad(expected, vectors)
    chosen = policy(kind="kl", temperature=temperature, teacher_temperature=teacher_temperature)
    loss, gradient = loss_and_gradient(vectors, distinct(5, 3).facts(teacher=teacher), chosen)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


def test_kl_is_flagembeddings_cross_entropy_less_the_teachers_entropy():
    """Its distill_loss of kl_div: −mean Σ teacher · log student, over the scores of an example's own group."""
    vectors, teacher = random_vectors(4, 2).requires_grad_(), torch.tensor(teacher_of(4, 2))
    student = (torch.nn.functional.cosine_similarity(vectors[:, :1], vectors[:, 1:], dim=-1) / 0.02).log_softmax(1)
    wanted = teacher.softmax(1)
    expected = -(wanted * student).sum(1).mean()
    (slope,) = torch.autograd.grad(expected, vectors)
    entropy = -(wanted * wanted.log()).sum(1).mean()
    facts = distinct(4, 2).facts(teacher=teacher.tolist())
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind="kl", temperature=0.02))
    torch.testing.assert_close(loss, (expected - entropy).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negatives", [1, 3])
def test_margin_mse_is_sentence_transformers_loss(negatives):
    vectors, teacher = random_vectors(5, negatives).requires_grad_(), teacher_of(5, negatives)
    theirs = MarginMSELoss(Given(6), pairwise_cos_sim)
    expected = theirs.compute_loss_from_embeddings(columns(vectors), torch.tensor(teacher))
    (slope,) = torch.autograd.grad(expected, vectors)
    facts = distinct(5, negatives).facts(teacher=teacher)
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind="margin_mse"))
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, slope)


number = st.floats(-2, 2)


@given(rows=st.lists(st.lists(st.tuples(number, number | st.just(NAN), st.booleans()), min_size=3, max_size=3)))
@settings(deadline=None)
def test_only_scored_and_present_passages_count(rows):
    """Both losses by their definitions over (cosine, teacher's score, present) of each passage."""
    rows = [[(c, t, there or k == 0) for k, (c, t, there) in enumerate(row)] for row in rows] or [
        [(0.0, NAN, True)] * 3
    ]
    cosines, teacher, present = (torch.tensor([[one[part] for one in row] for row in rows]) for part in range(3))
    cosines = cosines.double().requires_grad_()
    divergences, errors = [], []
    for row in rows:
        known = [(c / 0.5, t / 2) for c, t, there in row if there and not math.isnan(t)]
        if len(known) >= 2:
            student, wanted = (torch.tensor(one, dtype=torch.float64).softmax(0) for one in zip(*known, strict=True))
            divergences.append(float((wanted * (wanted / student).log()).sum()))
        if not math.isnan(row[0][1]):
            errors += [((row[0][0] - c) - (row[0][1] - t)) ** 2 for c, t, there in row[1:] if there and t == t]
    found = kl(cosines, teacher, present, 0.5, 2.0)
    assert float(found.detach()) == pytest.approx(sum(divergences) / max(1, len(divergences)), abs=1e-6)
    squared = margin_mse(cosines, teacher, present)
    assert float(squared.detach()) == pytest.approx(sum(errors) / max(1, len(errors)), abs=1e-5)
    slopes = torch.autograd.grad(found + squared, cosines)[0]
    assert slopes.isfinite().all()
    assert not slopes[~present | teacher.isnan()].any()


@pytest.mark.parametrize("function", [lambda *x: kl(*x, 0.5, 2.0), margin_mse])
def test_gradients_are_those_of_finite_differences(function):
    cosines = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    teacher = torch.tensor([[1.0, 0, 0.5], [NAN, 1, 2], [0.3, NAN, NAN], [0.1, 0.2, 0]])
    present = torch.tensor([[True] * 3] * 3 + [[True, True, False]])
    torch.autograd.gradcheck(lambda c: function(c, teacher, present), (cosines,))


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
@pytest.mark.parametrize("teacher", [None, [[NAN, NAN], [1.0, NAN]]])
def test_without_scores_only_the_contrastive_part_is_left(kind, teacher):
    vectors = random_vectors(2, 1)
    facts = Texts(["a", "b"], [["p"], ["r"]], [["p", "n"], ["r", None]]).facts(teacher=teacher)
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind=kind))
    assert float(loss) == 0
    assert not gradient.any()
    plain, slope = loss_and_gradient(vectors, facts, policy())
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind=kind, contrastive_weight=0.5))
    torch.testing.assert_close(loss, plain / 2)
    torch.testing.assert_close(gradient, slope / 2)


@pytest.mark.parametrize("kind", ["kl", "margin_mse"])
def test_parts_are_added(kind):
    vectors, facts = random_vectors(4, 2), distinct(4, 2).facts(teacher=teacher_of(4, 2))
    both, slope = loss_and_gradient(vectors, facts, policy(kind=kind, contrastive_weight=2.0))
    parts = [loss_and_gradient(vectors, facts, policy(kind=one)) for one in (kind, "infonce")]
    torch.testing.assert_close(both, parts[0][0] + 2 * parts[1][0])
    torch.testing.assert_close(slope, parts[0][1] + 2 * parts[1][1])
