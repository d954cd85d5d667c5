"""InfoNCE over cosine/temperature, with hard and in-batch negatives in up to four directions."""

from __future__ import annotations

import torch

from boom_ray.model.losses.facts import Facts
from boom_ray.model.losses.masks import hidden_own, hidden_passages, hidden_queries
from boom_ray.model.losses.settings import Policy


def info_nce(
    queries: torch.Tensor, passages: torch.Tensor, facts: Facts, policy: Policy, rows: slice = slice(None)
) -> torch.Tensor:
    """InfoNCE of some rows of a step; a row is a query and its positive.

    loss_i = log Z_i − cos(q_i, p_i)/τ, where Z_i sums exp(cos/τ) over the candidates of row i (van den Oord et al.
    2018, arXiv 1807.03748, eq. 4). With s = cos/τ, the candidates of the directions are

    - query_to_passage: s(q_i, p) of all passages p of the step, the row's own hard negatives among them;
    - passage_to_query: s(p_i, q_j) of all queries, the row's own among them;
    - query_to_query: s(q_i, q_j) of all other queries;
    - passage_to_passage: s(p_i, p) of the passages of all other examples.

    Partition ``joint`` is one sum over all directions (the improved contrastive loss of Li et al. 2023, arXiv
    2308.03281; the pair itself is in it once by each of the first two), ``per_direction`` the mean of log Z_i over the
    directions (symmetric InfoNCE). Without in-batch negatives the candidates are the row's own passages (PAPER.md
    section 4).

    False negatives are left out of Z_i (`boom_ray.model.losses.masks`), and with a margin also all candidates whose
    cosine exceeds that of the pair by more (the factor m of the loss of Zhang et al. 2025, arXiv 2506.05176). The pair
    itself never is.

    Args:
        queries: (B, d) of length 1.
        passages: (B, 1+K, d) of length 1: the positive of query i at [i, 0], its hard negatives after it; contiguous.
        facts: of the step.
        policy: temperature, in_batch, directions, partition, mask and margin count.
        rows: r of the B rows; the largest matrix has r·B·(1+K) elements.

    Returns:
        (r,) loss of each row.
    """
    if not policy.in_batch:
        return _own_only(queries[rows], passages[rows], hidden_own(facts, policy.mask)[rows], policy)
    count, group, _ = passages.shape
    flat = passages.flatten(0, 1)
    query, passage = queries[rows] / policy.temperature, passages[rows, 0] / policy.temperature
    place = torch.arange(count, device=queries.device)
    same = place[rows, None] == place  # (r, B): the row itself
    first = torch.arange(group, device=queries.device) == 0
    scores = query @ flat.T
    positive = scores.unflatten(1, (count, group))[:, rows, 0].diagonal()
    limit = _limit(positive, policy)
    hidden = hidden_passages(facts, policy.mask, rows)
    sums = [_log_sum(scores, hidden, limit, same.unsqueeze(2) & first)]
    if "passage_to_passage" in policy.directions:
        sums.append(_log_sum(passage @ flat.T, hidden | same.unsqueeze(2), limit))
    if {"passage_to_query", "query_to_query"} & set(policy.directions):
        others = hidden_queries(facts, policy.mask, rows)
    if "passage_to_query" in policy.directions:
        sums.append(_log_sum(passage @ queries.T, others, limit, same))
    if "query_to_query" in policy.directions:
        sums.append(_log_sum(query @ queries.T, others | same, limit))
    stacked = torch.stack(sums)
    return (stacked.logsumexp(0) if policy.partition == "joint" else stacked.mean(0)) - positive


def _own_only(queries: torch.Tensor, passages: torch.Tensor, hidden: torch.Tensor, policy: Policy) -> torch.Tensor:
    """InfoNCE over each example's own passages: (r,) from (r, d), (r, 1+K, d) and (r, 1+K) bool."""
    scores = torch.einsum("rd,rkd->rk", queries / policy.temperature, passages)
    positive = scores[:, 0]
    first = torch.arange(scores.shape[1], device=scores.device) == 0
    return _log_sum(scores, hidden, _limit(positive, policy), first) - positive


def _limit(positive: torch.Tensor, policy: Policy) -> torch.Tensor | None:
    """(r, 1) scores above which a candidate is taken for a false negative; comparing with it has no gradient."""
    return None if policy.margin is None else (positive + policy.margin / policy.temperature).unsqueeze(1)


def _log_sum(
    scores: torch.Tensor, hidden: torch.Tensor, limit: torch.Tensor | None, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """Log of the sum of exp(score) over the candidates.

    Args:
        scores: (r, n) cosine/τ.
        hidden: candidates left out: bool of r·n elements.
        limit: (r, 1) highest score of a candidate, None for no limit.
        kept: the pair itself, in whatever is hidden; bool that broadcasts to ``hidden``. None if it is no candidate.

    Returns:
        (r,); about the lowest float if all candidates are left out, not −inf, at which the gradient is NaN.
    """
    if limit is not None:
        hidden = hidden | (scores > limit).view_as(hidden)
    if kept is not None:
        hidden = hidden & ~kept
    return scores.masked_fill(hidden.view_as(scores), torch.finfo(scores.dtype).min).logsumexp(1)
