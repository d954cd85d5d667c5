"""What a loss needs to know of a step besides its embeddings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from boom_ray.artifacts.batches import Batch


@dataclass(frozen=True)
class Facts:
    """Texts, labels and scores of a step. Shapes: B queries, K hard negatives at most, P positives at most.

    Attributes:
        present: (B, 1+K) bool; False for absent negatives.
        query_keys: (B,) hashes of the queries' texts.
        known_positives: (B, P) hashes of each query's positives, padded by repeating one of them.
        candidate_keys: (B, 1+K) hashes of the passages' texts.
        labels: (B,) hashes of labels, None for unlabelled data.
        scores: (B,) graded similarity of query and positive in [0, 1], NaN where there is none; None without any.
        teacher: (B, 1+K) a teacher's scores of the passages on its own scale, NaN where there is none (what stands at
            absent negatives does not matter); None without any.
    """

    present: torch.Tensor
    query_keys: torch.Tensor
    known_positives: torch.Tensor
    candidate_keys: torch.Tensor
    labels: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    teacher: torch.Tensor | None = None

    @staticmethod
    def of(batch: Batch) -> Facts:
        """The facts of a batch; nothing is copied."""
        return Facts(**{field.name: getattr(batch, field.name) for field in fields(Facts)})

    def to(self, device: torch.device | str) -> Facts:
        """The same on a device."""
        found = ((field.name, getattr(self, field.name)) for field in fields(Facts))
        return Facts(**{name: None if value is None else value.to(device, non_blocking=True) for name, value in found})
