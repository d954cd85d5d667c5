"""The workers of one member: gathering embeddings and summing gradients across them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """A worker's place among the W workers of its member; without torch.distributed, W is 1."""

    rank: int
    workers: int

    @staticmethod
    def current() -> Group:
        """The process group that Ray Train has set up, or a group of one."""
        if dist.is_available() and dist.is_initialized():
            return Group(dist.get_rank(), dist.get_world_size())
        return Group(0, 1)

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, joined along the first dimension; gradients flow into ``own`` only.

        Every rank computes the whole loss from the same values, so the gradient of the whole loss with respect to its
        own embeddings is exact without any communication in the backward pass.

        Args:
            own: (b, …), the same shape on every rank.

        Returns:
            (W·b, …); rank r's part at [r·b : (r+1)·b].
        """
        if self.workers == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.workers)]
        dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks, in one flat exchange; a missing one counts as zero."""
        if self.workers == 1:
            return
        held = list(parameters)
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in held if parameter.grad is not None])
        dist.all_reduce(flat)
        offset = 0
        for parameter in held:
            size = parameter.numel()
            if parameter.grad is not None:
                parameter.grad.copy_(flat[offset : offset + size].view_as(parameter))
            offset += size

    def first_fault(self, own: str | None) -> str | None:
        """What went wrong on any rank, the same answer on all; no rank goes on to wait for one that has given up."""
        if self.workers == 1:
            return own
        found: list[str | None] = [None] * self.workers
        dist.all_gather_object(found, own)
        return next((fault for fault in found if fault is not None), None)
