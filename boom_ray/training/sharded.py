"""Weights of which every worker holds a share (FSDP2), for models that do not fit into one GPU with their moments.

Each block's weights are gathered when it computes and given up again; its gradients are summed and divided among the
workers after every micro-batch. All workers must therefore compute equally many micro-batches, see
`boom_ray.training.loop.fill`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from boom_ray.hashing import digest
from boom_ray.model.encoder import Encoder
from boom_ray.training.average import mean, put
from boom_ray.training.group import Group
from boom_ray.training.optimizer import ParameterGroup
from boom_ray.training.weights import Held, sum_of_squares


class Sharded:
    """See `boom_ray.training.weights.Weights`.

    Args:
        encoder: on its device, the same on all workers; every block becomes a unit of its own.
        groups: its trainable parameters.
        precision: type of forward and backward pass; weights and sums of gradients are float32.
        workers: who shares.
        averaged: type of the average that is kept, float32 or float64, see `Held`; None for none.
    """

    def __init__(
        self,
        encoder: Encoder,
        groups: Sequence[ParameterGroup],
        precision: torch.dtype,
        workers: Group,
        averaged: torch.dtype | None,
    ) -> None:
        """Divide the encoder's weights."""
        for tensor in encoder.state_dict().values():
            dist.broadcast(tensor, 0)
        mesh = init_device_mesh(encoder.device.type, (workers.workers,))
        policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
        for block in encoder.blocks():
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(encoder, mesh=mesh, mp_policy=policy)
        for module in encoder.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the loss is the mean over all workers' examples already
                module.set_force_sum_reduction_for_comms(enable=True)  # gloo knows no scaled sums
        self.workers, self.holders = workers, workers.workers
        trained = encoder.trainable()
        self.parameters = {name: cast(DTensor, trained[name]) for group in groups for name in group.names}
        self.own = {name: nn.Parameter(one.to_local(), requires_grad=False) for name, one in self.parameters.items()}
        self.groups = groups
        self._averages = {}
        if averaged is not None:
            self._averages = {name: one.detach().to(averaged, copy=True) for name, one in self.own.items()}

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """See `Weights`; AdamW sees plain tensors, this worker's shares."""
        return [
            {
                "params": [self.own[name] for name in group.names if self.own[name].numel()],
                "weight_decay": group.decay,
                "rate": group.rate,
            }
            for group in self.groups
        ]

    def clear(self) -> None:
        """See `Weights`."""
        for name, parameter in self.parameters.items():
            parameter.grad = self.own[name].grad = None

    def last(self) -> None:
        """See `Weights`; sums begin after every micro-batch anyway."""

    def reduce(self) -> torch.Tensor:
        """See `Weights`."""
        squares = []
        for name, parameter in self.parameters.items():
            own = self.own[name]
            own.grad = torch.zeros_like(own) if parameter.grad is None else cast(DTensor, parameter.grad).to_local()
            squares.append(sum_of_squares(own.grad))
        total = torch.stack(squares).sum()
        dist.all_reduce(total)
        return total.sqrt()

    def publish(self) -> None:
        """See `Weights`; blocks gather what they compute with from the weights themselves."""

    @torch.no_grad()
    def average(self, share: torch.Tensor) -> None:
        """See `Weights`."""
        for name, average in self._averages.items():
            average.lerp_(self.own[name], share)

    @torch.no_grad()
    def add(self, is_first: bool) -> None:
        """See `Weights`."""
        for name, average in self._averages.items():
            put(average, self.own[name], is_first)

    def held(self) -> list[Held]:
        """See `Weights`."""
        found = []
        for name, parameter in self.parameters.items():
            share = -(-len(parameter) // self.workers.workers)  # as torch.chunk divides
            start = min(len(parameter), share * self.workers.rank)
            found.append(Held(name, self.own[name], self._averages.get(name), start, len(parameter)))
        return [one for one in found if one.weight.numel()]

    def layout(self) -> str:
        """See `Weights`."""
        return digest([[name, list(parameter.shape)] for name, parameter in self.parameters.items()])

    @torch.no_grad()
    def full(self, averaged: bool, count: int = 1) -> dict[str, torch.Tensor]:
        """See `Weights`; all workers must call it, one tensor is whole at a time."""
        averages = self._averages if averaged else {}
        found = {}
        for name, parameter in self.parameters.items():
            local = averages.get(name, self.own[name].detach())
            whole = DTensor.from_local(
                local,
                parameter.device_mesh,
                parameter.placements,
                run_check=False,
                shape=parameter.shape,
                stride=parameter.stride(),
            ).full_tensor()
            if self.workers.rank == 0:
                found[name] = mean(whole, count if averages else 1)
        return found
