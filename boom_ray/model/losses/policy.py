"""The loss of a step under its dataset's policy, and its gradient with respect to the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from boom_ray.config.loss import GRADED
from boom_ray.model.losses.distill import kl, margin_mse
from boom_ray.model.losses.facts import Facts
from boom_ray.model.losses.graded import angle, cosent
from boom_ray.model.losses.infonce import info_nce
from boom_ray.model.losses.matryoshka import Matryoshka
from boom_ray.model.losses.settings import Policy, policy_of, resolve_policy

__all__ = [
    "Facts",
    "Matryoshka",
    "Policy",
    "StepPolicy",
    "loss_and_gradient",
    "policy_of",
    "policy_of_step",
    "resolve_policy",
    "step_loss",
]

StepPolicy = Policy | tuple[tuple[slice, Policy], ...]
"""The loss of a step: of one dataset, or rows and loss of each of its parts. Then the step's loss is the mean over
parts, weighted by their rows; in-batch negatives come from all parts, everything else of a part is its own."""


def policy_of_step(parts: Sequence[tuple[str, int]], policies: Mapping[str, Policy]) -> StepPolicy:
    """The loss of a step.

    Args:
        parts: dataset and number of examples of each part, in order.
        policies: dataset to its loss.
    """
    if len(parts) == 1:
        return policies[parts[0][0]]
    found, start = [], 0
    for name, count in parts:
        found.append((slice(start, start + count), policies[name]))
        start += count
    return tuple(found)


def step_loss(
    vectors: torch.Tensor, facts: Facts, policy: StepPolicy, matryoshka: Matryoshka | None = None
) -> torch.Tensor:
    """The loss of a whole step, differentiable.

    Args:
        vectors: (B, 2+K, d) embeddings of query, positive and negatives; of any length, for losses are on cosines.
        facts: of the step, on the same device.
        policy: of the step.
        matryoshka: losses of the first coordinates instead.

    Returns:
        Scalar float32; memory grows with the square of B if the policy has in-batch negatives.

    Raises:
        ModelError: the embeddings have fewer coordinates than the matryoshka.
    """
    total = vectors.new_zeros((), dtype=torch.float32)
    with torch.autocast(vectors.device.type, enabled=False):
        for size, weight in _sizes(vectors, matryoshka):
            unit = _unit(vectors[..., :size])
            for piece in _pieces(unit[:, 0], unit[:, 1:].contiguous(), facts, policy, len(vectors)):
                total = total + weight * piece
    return total


def loss_and_gradient(
    vectors: torch.Tensor,
    facts: Facts,
    policy: StepPolicy,
    matryoshka: Matryoshka | None = None,
    score_elements: int = 2**26,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a whole step and its gradient, in bounded memory; nothing waits for the device.

    InfoNCE is computed for a block of queries after the other, each with its backward pass, so that of the scores
    between all queries and all passages only a block is in memory.

    Args:
        vectors: (B, 2+K, d) as for `step_loss`; no graph is built on it.
        facts: of the step, on the same device.
        policy: of the step.
        matryoshka: losses of the first coordinates instead.
        score_elements: most elements of one matrix of scores, but one query's scores at least. About ten such
            matrices, 4 bytes per element, are in memory at once.

    Returns:
        Scalar float32 without a graph, and (B, 2+K, d) float32.

    Raises:
        ModelError: the embeddings have fewer coordinates than the matryoshka.
    """
    rows = max(1, score_elements // (len(vectors) * (vectors.shape[1] - 1)))
    total = vectors.new_zeros((), dtype=torch.float32)
    gradient = torch.zeros_like(vectors, dtype=torch.float32)
    with torch.enable_grad(), torch.autocast(vectors.device.type, enabled=False):
        for size, weight in _sizes(vectors, matryoshka):
            loss, slope = _one_size(vectors[..., :size], facts, policy, rows)
            total += weight * loss
            gradient[..., :size] += weight * slope
    return total, gradient


def _one_size(vectors: torch.Tensor, facts: Facts, policy: StepPolicy, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of all coordinates; blocks of ``rows`` queries add to the gradients of the same leaves."""
    leaf = vectors.detach().float().requires_grad_()
    unit = _unit(leaf)
    queries, passages = unit[:, 0].detach().clone().requires_grad_(), unit[:, 1:].detach().clone().requires_grad_()
    queries.grad, passages.grad = torch.zeros_like(queries), torch.zeros_like(passages)
    total = torch.zeros_like(queries[0, 0])
    for piece in _pieces(queries, passages, facts, policy, rows):
        piece.backward()
        total = total + piece.detach()
    slopes = torch.cat([queries.grad.unsqueeze(1), passages.grad], dim=1)
    (gradient,) = torch.autograd.grad(unit, leaf, slopes)
    return total, gradient


def _pieces(
    queries: torch.Tensor, passages: torch.Tensor, facts: Facts, policy: StepPolicy, rows: int
) -> Iterator[torch.Tensor]:
    """Summands of the loss, scalars, each with a graph of its own that is built when it is asked for."""
    parts = ((slice(0, len(queries)), policy),) if isinstance(policy, Policy) else policy
    for part, own in parts:
        yield from _pieces_of_part(queries, passages, facts, own, part, rows)


def _pieces_of_part(
    queries: torch.Tensor, passages: torch.Tensor, facts: Facts, policy: Policy, part: slice, rows: int
) -> Iterator[torch.Tensor]:
    """The same of the rows of one part, as they count in the whole step."""
    share = (part.stop - part.start) / len(queries)
    none = torch.full_like(facts.present[part], float("nan"), dtype=queries.dtype)
    if policy.kind in GRADED:
        ranked = cosent if policy.kind == "cosent" else angle
        scores = none[:, 0] if facts.scores is None else facts.scores[part]
        yield share * ranked(queries[part], passages[part, 0], scores, policy.temperature)
        return
    if policy.kind in {"kl", "margin_mse"}:
        cosines = torch.einsum("bd,bkd->bk", queries[part], passages[part])
        teacher, present = none if facts.teacher is None else facts.teacher[part], facts.present[part]
        if policy.kind == "kl":
            yield share * kl(cosines, teacher, present, policy.temperature, policy.teacher_temperature)
        else:
            yield share * margin_mse(cosines, teacher, present)
    weight = 1.0 if policy.kind == "infonce" else policy.contrastive_weight
    for start in range(part.start, part.stop if weight else part.start, rows):
        block = info_nce(queries, passages, facts, policy, slice(start, min(start + rows, part.stop)))
        yield weight * block.sum() / len(queries)


def _sizes(vectors: torch.Tensor, matryoshka: Matryoshka | None) -> tuple[tuple[int, float], ...]:
    """(coordinates, weight) of every loss to be summed."""
    dimension = vectors.shape[-1]
    return ((dimension, 1.0),) if matryoshka is None else matryoshka.sizes(dimension)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """The same directions, of length 1, in float32."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
