from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from boom_ray.config.loss import DIRECTIONS, MASKS
from boom_ray.model.losses import loss_and_gradient, step_loss
from boom_ray.model.losses.infonce import info_nce
from tests.model.losses.world import (
    DIRECTION_NAMES,
    Given,
    Texts,
    columns,
    distinct,
    policy,
    random_vectors,
    steps,
    unit,
    written_out,
)

MORE = [more for size in range(4) for more in itertools.combinations(DIRECTIONS[1:], size)]
FORMS = [(("query_to_passage", *more), "joint") for more in MORE]
FORMS += [(("query_to_passage", *more), "per_direction") for more in ((), ("passage_to_query",))]


@pytest.mark.parametrize(("directions", "partition"), FORMS)
def test_it_is_sentence_transformers_loss_in_every_direction(directions, partition):
    vectors = random_vectors(7, 2).requires_grad_()
    settings = {"directions": tuple(DIRECTION_NAMES[one] for one in directions), "partition_mode": partition}
    theirs = MultipleNegativesRankingLoss(Given(6), scale=20.0, **settings)
    expected = theirs.compute_loss_from_embeddings(columns(vectors), None)
    (slope,) = torch.autograd.grad(expected, vectors)
    loss, gradient = loss_and_gradient(
        vectors, distinct(7, 2).facts(), policy(directions=directions, partition=partition)
    )
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


def test_blocks_of_queries_are_sentence_transformers_cached_loss():
    vectors = random_vectors(8, 1)
    cached = CachedMultipleNegativesRankingLoss(Given(6), mini_batch_size=3, directions=tuple(DIRECTION_NAMES.values()))
    pieces = [[piece.clone().requires_grad_() for piece in column.split(3)] for column in columns(vectors)]
    expected = cached.calculate_loss(pieces, with_backward=True)
    slope = torch.stack([torch.cat([piece.grad for piece in column]) for column in pieces], dim=1)
    loss, gradient = loss_and_gradient(
        vectors, distinct(8, 1).facts(), policy(directions=DIRECTIONS), score_elements=3 * 16
    )
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@given(
    texts=steps(),
    seed=st.integers(0, 999),
    form=st.sampled_from(FORMS),
    mask=st.lists(st.sampled_from(MASKS), unique=True),
    margin=st.none() | st.sampled_from([-0.5, 0.0, 0.3]),
    own_only=st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_it_is_the_written_out_formula_with_every_mask(texts, seed, form, mask, margin, own_only):
    directions, partition = (("query_to_passage",), "joint") if own_only else form
    fields = {"directions": directions, "partition": partition, "in_batch": not own_only}
    chosen = policy(mask=tuple(mask), margin=margin, temperature=0.2, **fields)
    vectors = random_vectors(len(texts.queries), len(texts.passages[0]) - 1, seed=seed)
    loss = step_loss(vectors, texts.facts(), chosen)
    assert float(loss) == pytest.approx(written_out(vectors, texts, chosen), rel=1e-4, abs=1e-4)


@given(texts=steps(4), seed=st.integers(0, 99), directions=st.sampled_from([form[0] for form in FORMS]))
@settings(deadline=None, max_examples=25)
def test_gradients_are_those_of_finite_differences(texts, seed, directions):
    vectors = random_vectors(len(texts.queries), len(texts.passages[0]) - 1, size=3, seed=seed)
    queries, passages = (one.requires_grad_() for one in unit(vectors))
    chosen = policy(directions=directions, temperature=0.5)
    torch.autograd.gradcheck(lambda q, p: info_nce(q, p, texts.facts(), chosen), (queries, passages))


@given(texts=steps(), seed=st.integers(0, 99), directions=st.sampled_from([form[0] for form in FORMS]))
@settings(deadline=None, max_examples=50)
def test_hidden_passages_have_no_influence(texts, seed, directions):
    """Every passage that the strings say is no candidate of row i has no gradient from it, all others have one."""
    vectors = random_vectors(len(texts.queries), len(texts.passages[0]) - 1, seed=seed)
    queries, passages = unit(vectors)
    passages.requires_grad_()
    chosen = policy(temperature=0.5)
    rows = info_nce(queries, passages, texts.facts(), chosen)
    for i, loss in enumerate(rows):
        (slope,) = torch.autograd.grad(loss, passages, retain_graph=True)
        for j, row in enumerate(texts.passages):
            for k, text in enumerate(row):
                same_label = texts.labels is not None and k == 0 and texts.labels[i] == texts.labels[j]
                hidden = text is None or text in {texts.queries[i], *texts.known[i]} or same_label
                if (j, k) != (i, 0):
                    assert bool(slope[j, k].any()) is not hidden


def test_a_lone_positive_costs_nothing_and_absent_negatives_get_no_gradient():
    texts = Texts(["q", "r"], [["p"], ["s"]], [["p", None, None], ["s", "n", None]])
    for in_batch in (False, True):
        vectors = random_vectors(2, 2, seed=3)
        _, gradient = loss_and_gradient(vectors, texts.facts(), policy(in_batch=in_batch))
        assert bool(gradient[0, :2].any()) is in_batch  # of its own passages only the positive is left: softmax 1
        assert not gradient[0, 2:].any()
        assert gradient[1, 2].any()
        assert not gradient[1, 3].any()


def test_a_positive_far_behind_all_negatives_is_not_hidden_by_the_margin():
    vectors = torch.tensor([[[1.0, 0], [-1, 0], [1, 0]], [[0, 1], [0, -1], [0, 1]]])
    facts = distinct(2, 1).facts()
    loss, _ = loss_and_gradient(vectors, facts, policy(margin=0.1, directions=DIRECTIONS))
    assert float(loss) == pytest.approx(math.log(2))  # the pair itself, once in each of two directions
    whole, _ = loss_and_gradient(vectors, facts, policy())
    assert float(whole) > 20


def test_the_margin_says_which_candidates_count():
    """Qwen3-Embedding's rule: what is more similar than the positive by more than the margin is a false negative."""
    angles = torch.tensor([[0.0, 1.0, 0.9, 0.2], [2.5, 2.6, 4.0, 4.5]])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=-1)
    chosen = policy(margin=0.1, in_batch=False, temperature=1.0)
    cosines = (angles[:, :1] - angles[:, 1:]).cos()
    kept = cosines <= cosines[:, :1] + 0.1
    assert kept.tolist() == [[True, True, False], [True, True, True]]
    expected = ((cosines.exp() * kept).sum(1).log() - cosines[:, 0]).mean()
    loss, gradient = loss_and_gradient(vectors, distinct(2, 2).facts(), chosen)
    torch.testing.assert_close(loss, expected)
    assert not gradient[0, 3].any()
