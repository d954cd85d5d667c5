from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import AnglELoss, CoSENTLoss

from boom_ray.model.losses import loss_and_gradient
from boom_ray.model.losses.graded import angle, cosent, ranking
from tests.model.losses.world import Given, columns, distinct, policy, random_vectors, unit

scores = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=7)


@pytest.mark.parametrize(("kind", "oracle"), [("cosent", CoSENTLoss), ("angle", AnglELoss)])
@pytest.mark.parametrize("size", [6, 5])
@given(wanted=scores, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_they_are_sentence_transformers_losses(kind, oracle, size, wanted, seed):
    vectors = random_vectors(len(wanted), 0, size, seed).requires_grad_()
    theirs = oracle(Given(size), scale=20.0)
    expected = theirs.compute_loss_from_embeddings(columns(vectors), torch.tensor(wanted))
    (slope,) = torch.autograd.grad(expected, vectors)
    facts = distinct(len(wanted), 0).facts(scores=wanted)
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind=kind))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-5)


@given(pairs=st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([0.0, 0.4, 1.0, math.nan])), min_size=1, max_size=6))
def test_ranking_is_the_written_out_formula(pairs):
    found = torch.tensor([similarity for similarity, _ in pairs], dtype=torch.float64)
    wanted = torch.tensor([score for _, score in pairs])
    total = 1.0
    for similarity, score in pairs:
        for other, better in pairs:
            if score < better:
                total += math.exp((similarity - other) / 0.1)
    assert float(ranking(found, wanted, 0.1)) == pytest.approx(math.log(total), abs=1e-9)


@pytest.mark.parametrize("function", [cosent, angle])
def test_gradients_are_those_of_finite_differences(function):
    queries, passages = unit(random_vectors(5, 0, size=4))
    wanted = torch.tensor([0.0, 0.5, 0.5, 1.0, math.nan])
    inputs = (queries.requires_grad_(), passages[:, 0].clone().requires_grad_())
    torch.autograd.gradcheck(lambda q, p: function(q, p, wanted, 0.5), inputs)


@pytest.mark.parametrize("kind", ["cosent", "angle"])
@pytest.mark.parametrize("wanted", [[0.5] * 4, [math.nan] * 4, [math.nan] * 3 + [1.0], None])
def test_a_step_in_which_nothing_is_comparable_has_loss_0_and_no_gradient(kind, wanted):
    facts = distinct(4, 1).facts(scores=wanted)
    loss, gradient = loss_and_gradient(random_vectors(4, 1), facts, policy(kind=kind))
    assert float(loss) == 0
    assert not gradient.any()


@pytest.mark.parametrize("kind", ["cosent", "angle"])
def test_hard_negatives_and_pairs_without_a_score_are_left_alone(kind):
    facts = distinct(4, 2).facts(scores=[0.1, math.nan, 0.7, 0.9])
    vectors = random_vectors(4, 2)
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind=kind))
    assert not gradient[:, 2:].any()
    assert not gradient[1].any()
    kept = [0, 2, 3]
    fewer, slope = loss_and_gradient(vectors[kept], distinct(3, 2).facts(scores=[0.1, 0.7, 0.9]), policy(kind=kind))
    torch.testing.assert_close(loss, fewer)
    torch.testing.assert_close(gradient[kept], slope)
