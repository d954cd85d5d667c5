"""Contrastive losses over embeddings; plain functions of tensors."""

from __future__ import annotations

import torch


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    present: torch.Tensor,
    excluded: torch.Tensor | None,
    temperature: float,
) -> torch.Tensor:
    """InfoNCE over cosine/temperature with hard and, if wanted, in-batch negatives.

    loss = mean_i −log( exp(q_i·p_i/τ) / Σ_c exp(q_i·c/τ) ), where c runs over the candidates of query i: its own
    passages, and with in-batch negatives those of all other queries as well (van den Oord et al. 2018, eq. 4;
    PAPER.md section 4 for what is in the batch).

    Args:
        queries: (B, d), of length 1 for cosine.
        passages: (B, 1+K, d): the positive of query i at [i, 0], its hard negatives after it.
        present: (B, 1+K) bool; False where an example has fewer than K negatives.
        excluded: None for own candidates only, else (B, B, 1+K) bool: True where passage [j, k] must not be a negative
            of query i because it answers i too (same text, same label); [i, i, 0] is ignored.
        temperature: τ > 0.

    Returns:
        Scalar, float32.
    """
    count, group, _ = passages.shape
    if excluded is None:
        scores = torch.einsum("bd,bkd->bk", queries, passages) / temperature
        scores = scores.masked_fill(~present, float("-inf"))
        target = torch.zeros(count, dtype=torch.int64, device=queries.device)
        return torch.nn.functional.cross_entropy(scores, target)
    scores = queries @ passages.reshape(count * group, -1).T / temperature
    target = torch.arange(count, device=queries.device) * group
    hidden = (excluded | ~present.unsqueeze(0)).reshape(count, count * group)
    hidden = hidden.scatter(1, target.unsqueeze(1), False)
    return torch.nn.functional.cross_entropy(scores.masked_fill(hidden, float("-inf")), target)


def false_negatives(
    query_keys: torch.Tensor,
    known_positives: torch.Tensor,
    candidate_keys: torch.Tensor,
    labels: torch.Tensor | None,
) -> torch.Tensor:
    """Which passages of a step must not count as negatives of which query.

    A passage is excluded for query i if its text is one of i's positives or i's own text, or if it is the positive of
    an example with i's label.

    Args:
        query_keys: (B,) hashes of the queries' texts.
        known_positives: (B, P) hashes of all positives of each example, padded by repeating one of them.
        candidate_keys: (B, 1+K) hashes of the passages in the step.
        labels: (B,) hashes of labels, or None for unlabelled data.

    Returns:
        (B, B, 1+K) bool.
    """
    count, group = candidate_keys.shape
    flat = candidate_keys.reshape(1, -1)
    excluded = flat == query_keys.reshape(-1, 1)
    for column in known_positives.T:
        excluded |= flat == column.reshape(-1, 1)
    result = excluded.reshape(count, count, group)
    if labels is not None:
        result[:, :, 0] |= labels.reshape(-1, 1) == labels.reshape(1, -1)
    return result
