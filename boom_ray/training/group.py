"""The workers of one member: gathering embeddings across them, and agreeing on what happens next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from boom_ray.artifacts.plan import share

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """A worker's place among the W workers of its member; without torch.distributed, W is 1."""

    rank: int
    workers: int
    host: Any = field(default=None, compare=False)  # a group for plain values, which must not wait for GPUs

    @staticmethod
    def current() -> Group:
        """The process group that Ray Train has set up, or a group of one; all ranks must call it."""
        if not (dist.is_available() and dist.is_initialized()):
            return Group(0, 1)
        host = dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None
        return Group(dist.get_rank(), dist.get_world_size(), host)

    def own(self, count: int) -> slice:
        """This worker's part of ``count`` rows."""
        return share(count, self.rank, self.workers)

    def gather(self, own: torch.Tensor, count: int) -> torch.Tensor:
        """The tensors of all ranks, joined along the first dimension; gradients do not flow through it.

        Every rank computes the whole loss from the same values, so the gradient of the whole loss with respect to its
        own embeddings is exact without any communication in the backward pass.

        Args:
            own: (b, …), rank r's rows `share` (count, r, W).
            count: B, rows of all ranks.

        Returns:
            (B, …).
        """
        if self.workers == 1:
            return own
        most = -(-count // self.workers)
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own
        joined = [torch.empty_like(padded) for _ in range(self.workers)]
        dist.all_gather(joined, padded)
        parts = [share(count, rank, self.workers) for rank in range(self.workers)]
        return torch.cat([piece[: part.stop - part.start] for piece, part in zip(joined, parts, strict=True)])

    def pieces(self, count: int, kept: int) -> tuple[int, int]:
        """How many micro-batches all ranks compute, and how many of them keep their activations.

        Args:
            count: this rank's micro-batches.
            kept: how many of them it can keep.
        """
        everyone = self._all((count, kept))
        most = max(own for own, _ in everyone)
        return most, min(most if kept == own else kept for own, kept in everyone)

    def from_first(self, value: T) -> T:
        """Rank 0's value, on all ranks."""
        return value if self.workers == 1 else self._all(value)[0]

    def first_fault(self, own: str | None) -> str | None:
        """What went wrong on any rank, the same answer on all; no rank goes on to wait for one that has given up."""
        if self.workers == 1:
            return own
        return next((fault for fault in self._all(own) if fault is not None), None)

    def _all(self, own: T) -> list[T]:
        found: list[T] = [own] * self.workers
        dist.all_gather_object(found, own, group=self.host)
        return found
