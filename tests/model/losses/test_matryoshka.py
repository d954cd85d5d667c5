from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    CoSENTLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from boom_ray.errors import ModelError
from boom_ray.model.losses import Matryoshka, loss_and_gradient, step_loss
from tests.model.losses.world import Given, columns, distinct, policy, random_vectors

ORACLES = {"infonce": MultipleNegativesRankingLoss, "cosent": CoSENTLoss, "angle": AnglELoss}


@pytest.mark.parametrize("kind", sorted(ORACLES))
def test_it_is_sentence_transformers_loss(kind):
    negatives = 2 if kind == "infonce" else 0
    vectors = random_vectors(5, negatives, size=8).requires_grad_()
    scores = [0.0, 0.3, 0.3, 0.9, 1.0]
    model = Given(8)
    theirs = MatryoshkaLoss(model, ORACLES[kind](model), [8, 5, 3], [1.0, 0.5, 2.0])
    expected = theirs([{"vectors": one} for one in columns(vectors)], torch.tensor(scores))
    (slope,) = torch.autograd.grad(expected, vectors)
    facts, sizes = distinct(5, negatives).facts(scores=scores), Matryoshka((8, 5, 3), (1.0, 0.5, 2.0))
    loss, gradient = loss_and_gradient(vectors, facts, policy(kind=kind), sizes)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step_loss(vectors, facts, policy(kind=kind), sizes), expected, rtol=1e-5, atol=1e-5)


def test_the_whole_embedding_alone_is_the_plain_loss():
    vectors, facts = random_vectors(5, 1), distinct(5, 1).facts()
    loss, gradient = loss_and_gradient(vectors, facts, policy(), Matryoshka((6,), (1.0,)))
    plain, slope = loss_and_gradient(vectors, facts, policy())
    assert torch.equal(loss, plain)
    assert torch.equal(gradient, slope)


def test_coordinates_beyond_the_largest_have_no_gradient():
    _, gradient = loss_and_gradient(
        random_vectors(5, 1), distinct(5, 1).facts(), policy(), Matryoshka((4, 2), (1.0, 1.0))
    )
    assert gradient[..., :4].all()
    assert not gradient[..., 4:].any()


@pytest.mark.parametrize(
    ("dimensions", "weights", "text"),
    [
        ((4, 2), (1.0,), "one weight per dimension: 2 and 1"),
        ((), (), "one weight per dimension"),
        ((2, 4), (1.0, 1.0), r"descend and be positive: \[2, 4\]"),
        ((4, 4), (1.0, 1.0), "descend"),
        ((4, 0), (1.0, 1.0), "positive"),
    ],
)
def test_faulty_sizes(dimensions, weights, text):
    with pytest.raises(ValueError, match=text):
        Matryoshka(dimensions, weights)


def test_an_embedding_that_is_too_short():
    with pytest.raises(ModelError, match=r"matryoshka.dimensions has 7; the model's embeddings are 6 wide"):
        step_loss(random_vectors(2, 0), distinct(2, 0).facts(), policy(), Matryoshka((7,), (1.0,)))
