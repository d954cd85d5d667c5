"""The contrastive loss of one step and its gradients: what training and every other user of its loss have in common.

One forward pass over all distinct texts, sorted by length and cut into micro-batches; the loss of the whole step from
their embeddings; gradients back through the micro-batches. Only one micro-batch's texts are padded to one length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.artifacts.tokens import I32
from boom_ray.model.encoder import Encoder
from boom_ray.model.losses import false_negatives, info_nce


class StepSettings(Protocol):
    """What a step needs to know; `boom_ray.config.TrainingConfig` is one."""

    @property
    def temperature(self) -> float:
        """InfoNCE's temperature."""

    @property
    def precision(self) -> str:
        """Type of the forward pass: ``bfloat16`` or ``float32``."""

    @property
    def micro_batch_tokens(self) -> int:
        """Most tokens of one forward pass, padding included."""


@dataclass(frozen=True)
class StepResult:
    """Loss of a step, tokens of its texts, and the same with padding."""

    loss: float
    tokens: int
    padded: int


def backward(
    encoder: Encoder,
    batch: Batch,
    settings: StepSettings,
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> StepResult:
    """Add the gradients of the step's loss, those of this worker's texts, to the parameters' ``grad``.

    Args:
        encoder: the model, on its device.
        batch: the step.
        settings: temperature, precision, size of micro-batches.
        gather: joins the embeddings of all workers; see `boom_ray.training.group.Group.gather`. None for one worker.

    Returns:
        The loss of the whole step, and the tokens of this worker's texts.
    """
    embedded = embed(encoder, batch.texts, settings)
    unique = torch.cat([piece.detach() for piece in embedded.pieces])[embedded.place]
    own = unique[batch.index].requires_grad_()
    loss = step_loss(gather(own) if gather else own, batch, settings.temperature)
    (gradient,) = torch.autograd.grad(loss, own)
    scattered = torch.zeros_like(unique)
    scattered.index_add_(0, batch.index.reshape(-1).to(unique.device), gradient.reshape(-1, gradient.shape[-1]))
    sorted_gradient = torch.empty_like(scattered)
    sorted_gradient[embedded.place] = scattered
    torch.autograd.backward(embedded.pieces, list(sorted_gradient.split([len(piece) for piece in embedded.pieces])))
    return StepResult(float(loss.detach()), embedded.tokens, embedded.padded)


def step_loss(vectors: torch.Tensor, batch: Batch, temperature: float) -> torch.Tensor:
    """InfoNCE of the whole step from (B, 2+K, d): query, positive and negatives of every example; a scalar."""
    vectors = torch.nn.functional.normalize(vectors, dim=-1)  # cosines also where the model keeps its lengths
    excluded = None
    if batch.in_batch:
        excluded = false_negatives(batch.query_keys, batch.known_positives, batch.candidate_keys, batch.labels)
        excluded = excluded.to(vectors.device)
    return info_nce(vectors[:, 0], vectors[:, 1:], batch.present.to(vectors.device), excluded, temperature)


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the texts of a step.

    Attributes:
        pieces: the micro-batches' embeddings with their graphs, longest texts first.
        place: (n,) the place of every text in their concatenation.
        tokens: tokens of the texts.
        padded: tokens with padding.
    """

    pieces: list[torch.Tensor]
    place: torch.Tensor
    tokens: int
    padded: int


def embed(encoder: Encoder, texts: Sequence[I32], settings: StepSettings) -> Embedded:
    """Embed texts in micro-batches of similar length."""
    device = next(encoder.parameters()).device
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    longest_first = np.argsort(-lengths, kind="stable")
    pieces: list[torch.Tensor] = []
    start = padded = 0
    while start < len(texts):
        width = int(lengths[longest_first[start]])
        stop = min(len(texts), start + max(1, settings.micro_batch_tokens // width))
        ids, mask = pad([texts[place] for place in longest_first[start:stop]], encoder.pad_id)
        padded += ids.numel()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            pieces.append(encoder(ids.to(device), mask.to(device)))
        start = stop
    place = np.empty(len(texts), dtype=np.int64)
    place[longest_first] = np.arange(len(texts))
    return Embedded(pieces, torch.from_numpy(place).to(device), int(lengths.sum()), padded)


def pad(texts: Sequence[I32], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad token arrays to the longest.

    Returns:
        (n, t) int64 token ids and (n, t) int64 mask, 1 for tokens.
    """
    width = max(len(text) for text in texts)
    ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
