"""Losses over pairs with graded similarity: every pair of pairs should be in the order of its scores."""

from __future__ import annotations

import torch


def cosent(queries: torch.Tensor, passages: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """CoSENT: `ranking` of the cosines (Su 2022, kexue.fm/archives/8847).

    Args:
        queries: (B, d) of length 1.
        passages: (B, d) of length 1, one per query.
        scores: (B,) wanted similarity, NaN for pairs that do not take part.
        temperature: τ > 0.

    Returns:
        Scalar ≥ 0.
    """
    return ranking((queries * passages).sum(1), scores, temperature)


def angle(queries: torch.Tensor, passages: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """AnglE: `ranking` of the angle objective's similarity in complex space (Li & Li 2023, arXiv 2309.12871).

    The halves of a vector are the real and imaginary parts of d/2 complex numbers. For z of the query and w of the
    passage, both of length 1 as real vectors, the similarity is |Re Σ z̄·w + Im Σ z·w̄|: the cosine plus a term that
    still changes with the angle between z and w where the cosine is flat, as in the authors' code and in
    sentence-transformers' AnglELoss.

    Arguments and result as of `cosent`; an odd d counts as d+1 with a zero.
    """
    if queries.shape[1] % 2:
        queries, passages = (torch.nn.functional.pad(one, (0, 1)) for one in (queries, passages))
    real, imaginary = queries.chunk(2, dim=1)
    other_real, other_imaginary = passages.chunk(2, dim=1)
    cosines = (queries * passages).sum(1)
    sines = (imaginary * other_real - real * other_imaginary).sum(1)
    return ranking((cosines + sines).abs(), scores, temperature)


def ranking(similarities: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """log(1 + Σ exp((s_i − s_j)/τ)), over all i, j with score_i < score_j; s are the similarities.

    Args:
        similarities: (B,) found.
        scores: (B,) wanted; NaN compares with nothing.
        temperature: τ > 0.

    Returns:
        Scalar ≥ 0; 0 with no gradient if no two scores differ. Takes memory for B² floats.
    """
    excess = (similarities.unsqueeze(1) - similarities) / temperature
    wrong = excess.masked_fill(~(scores.unsqueeze(1) < scores), float("-inf"))
    return torch.cat([wrong.new_zeros(1), wrong.flatten()]).logsumexp(0)
