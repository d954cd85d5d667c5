from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.util import cos_sim

from boom_ray.model.losses import false_negatives, info_nce


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def literal(queries, passages, present, excluded, temperature) -> float:
    """The formula written out with loops and math.exp."""
    total = 0.0
    count, group, _ = passages.shape
    for i in range(count):
        score = lambda j, k, i=i: math.exp(float(queries[i] @ passages[j, k]) / temperature)  # noqa: E731
        denominator = 0.0
        for j in range(count):
            for k in range(group):
                own = (j, k) == (i, 0)
                counted = present[j, k] and (not excluded[i, j, k] if excluded is not None else j == i)
                if own or counted:
                    denominator += score(j, k)
        total -= math.log(score(i, 0) / denominator)
    return total / count


@pytest.mark.parametrize("in_batch", [True, False])
def test_info_nce_equals_the_written_out_formula(in_batch):
    queries, passages = unit(5, 8), unit(5, 3, 8, seed=1)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[1, 2] = present[4, 1] = False
    excluded = torch.zeros(5, 5, 3, dtype=torch.bool)
    excluded[0, 3, 0] = excluded[2, 1, 1] = excluded[3, 3, 0] = True
    given = excluded if in_batch else None
    expected = literal(queries, passages, present, given, 0.1)
    assert float(info_nce(queries, passages, present, given, 0.1)) == pytest.approx(expected, rel=1e-12)


def test_info_nce_equals_sentence_transformers_formula_without_masks():
    """MultipleNegativesRankingLoss: cross entropy over scaled cosines of all positives, then all negatives."""
    queries, passages = unit(6, 4), unit(6, 2, 4, seed=2)
    present = torch.ones(6, 2, dtype=torch.bool)
    scores = cos_sim(queries, torch.cat([passages[:, 0], passages[:, 1]])) * 20.0
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(6))
    ours = info_nce(queries, passages, present, torch.zeros(6, 6, 2, dtype=torch.bool), 0.05)
    torch.testing.assert_close(ours, expected)


def test_a_lone_positive_costs_nothing_and_absent_negatives_get_no_gradient():
    queries, passages = unit(2, 4), unit(2, 3, 4, seed=3).requires_grad_()
    present = torch.tensor([[True, False, False], [True, True, False]])
    loss = info_nce(queries, passages, present, None, 0.1)
    loss.backward()
    assert torch.count_nonzero(passages.grad[0]) == 0  # only its positive is left, whose softmax is 1
    assert torch.count_nonzero(passages.grad[1, 2]) == 0
    assert torch.count_nonzero(passages.grad[1, 1]) > 0


def test_false_negatives_by_text_and_label():
    queries = torch.tensor([1, 2, 3])
    known = torch.tensor([[10, 11], [20, 20], [30, 30]])
    candidates = torch.tensor([[10, 2], [20, 11], [30, 99]])
    excluded = false_negatives(queries, known, candidates, None)
    expected = torch.zeros(3, 3, 2, dtype=torch.bool)
    expected[0, 0, 0] = expected[1, 1, 0] = expected[2, 2, 0] = True  # own positives; the loss lets them count
    expected[0, 1, 1] = True  # 11 is another positive of query 0
    expected[1, 0, 1] = True  # text 2 is query 1 itself
    assert torch.equal(excluded, expected)
    labelled = false_negatives(queries, known, candidates, torch.tensor([7, 7, 8]))
    expected[0, 1, 0] = expected[1, 0, 0] = True
    assert torch.equal(labelled, expected)
