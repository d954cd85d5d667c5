"""The weights that are trained: float32 masters, their gradients, and the copies that the model computes with.

Parameters of one learning rate and weight decay lie one after the other in one flat float32 array, as do their
gradients; the optimiser sees a few large arrays instead of hundreds of tensors. In bfloat16 the model computes with
flat copies in that type; every micro-batch's gradients are added up in float32. (`boom_ray.training.sharded` has the
form in which no worker holds everything.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from boom_ray.hashing import digest
from boom_ray.model.encoder import Encoder
from boom_ray.training.average import mean, put
from boom_ray.training.embeddings import direct_gradients
from boom_ray.training.group import Group
from boom_ray.training.optimizer import ParameterGroup

ROW = 4096
BUCKET = 1 << 24  # elements that are summed over workers at once, 64 MiB


@dataclass(frozen=True)
class Held:
    """A tensor of weights as this worker holds it.

    Attributes:
        name: unique, the same on all workers.
        weight: what the optimiser changes; its moments are of the same shape.
        average: the average, of the same shape: moving in float32, or the sum of snapshots in float64.
        start: first row of the whole tensor that this worker holds.
        rows: rows of the whole tensor; None if this worker holds all of it.
    """

    name: str
    weight: nn.Parameter
    average: torch.Tensor | None = None
    start: int = 0
    rows: int | None = None


def sum_of_squares(values: torch.Tensor) -> torch.Tensor:
    """Σ x², a float64 scalar on the device, to about 1e-8.

    Rows of 4096 are summed in float32 and their sums in float64: torch's float32 norms of large arrays are wrong by
    percents on CPUs (PEERS.md 0.6), and norms in float64 take 25 times as long.
    """
    flat = values.reshape(-1)
    whole = len(flat) // ROW * ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1).double().square().sum()
    return rows + flat[whole:].double().square().sum()


class Weights(Protocol):
    """What the loop asks of weights, whichever way they are held."""

    holders: int
    """Workers that hold a part of their own, and so write a file of a checkpoint."""

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: ``params``, ``weight_decay`` and ``rate``, a factor of the learning rate."""

    def clear(self) -> None:
        """Gradients become 0."""

    def last(self) -> None:
        """The next backward pass is the last one before `reduce`: sums over workers may begin beside it."""

    def reduce(self) -> torch.Tensor:
        """Gradients become their sums over workers; returns the L2 norm of all, float64 on the model's device."""

    def publish(self) -> None:
        """The model computes with what the optimiser has made of the weights."""

    def average(self, share: torch.Tensor) -> None:
        """Move the average of the weights: (1 - share) · old + share · weights; ``share`` is on the device."""

    def add(self, is_first: bool) -> None:
        """Add the weights to the sum of snapshots, which begins with the first of them."""

    def held(self) -> list[Held]:
        """What a checkpoint must hold, on every worker that holds a part of it."""

    def layout(self) -> str:
        """Hash of the tensors' names and shapes; a checkpoint of another layout does not fit."""

    def full(self, averaged: bool, count: int = 1) -> dict[str, torch.Tensor]:
        """Name to trained weights (or their average) in float32 on the CPU; on rank 0 only if they are sharded.

        Args:
            averaged: the average, if one is kept.
            count: what it is divided by: how many snapshots it is the sum of.
        """


@dataclass
class Flat:
    """One parameter group: views of ``master`` and ``grad``, in order, are its parameters.

    Attributes:
        names: of the parameters.
        shapes: of each.
        master: (n,) float32 weights; what the optimiser changes.
        grad: (n,) float32.
        compute: (n,) what the model computes with; ``master`` itself in float32.
        group: learning rate and decay.
        average: (n,) of ``master``, if one is kept: the moving average in float32, the sum of snapshots in float64.
    """

    names: tuple[str, ...]
    shapes: list[torch.Size]
    master: nn.Parameter
    grad: torch.Tensor
    compute: torch.Tensor
    group: ParameterGroup
    average: torch.Tensor | None = None

    @property
    def has_copies(self) -> bool:
        """Whether the model computes with something else than the masters."""
        return bool(self.compute.data_ptr() != self.master.data_ptr())

    def parts(self) -> Iterator[tuple[str, slice, torch.Size]]:
        """Name, place and shape of every parameter."""
        start = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            yield name, slice(start, start + shape.numel()), shape
            start += shape.numel()


class Replicated:
    """Every worker holds all weights; the sum of gradients over workers is exchanged while they are still computed.

    Args:
        encoder: on its device; its parameters are moved into the flat arrays.
        groups: its trainable parameters, see `boom_ray.training.optimizer.parameter_groups`.
        precision: type of the forward pass.
        workers: whom gradients are summed with.
        averaged: type of the average that is kept, float32 or float64, see `Held`; None for none.
    """

    holders = 1

    def __init__(
        self,
        encoder: Encoder,
        groups: Sequence[ParameterGroup],
        precision: torch.dtype,
        workers: Group,
        averaged: torch.dtype | None,
    ) -> None:
        """Take over the encoder's weights; rank 0's, should they differ."""
        self.workers = workers
        trained = encoder.trainable()
        if workers.workers > 1:
            for tensor in encoder.state_dict().values():
                dist.broadcast(tensor, 0)
        self.flats = [_flat(trained, group, precision, averaged) for group in groups]
        for parameter in encoder.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(precision)
        self._buckets = _Buckets([flat.grad for flat in self.flats]) if workers.workers > 1 else None
        self._is_last = False
        self._places: dict[torch.Tensor, tuple[int, slice]] = {}
        grads: dict[nn.Parameter, torch.Tensor] = {}
        for number, flat in enumerate(self.flats):
            for name, part, shape in flat.parts():
                grads[trained[name]] = flat.grad[part].view(shape)
                self._take(trained[name], number, part, grads[trained[name]])
        if encoder.device.type == "cpu":
            direct_gradients(encoder, grads)

    def _take(self, parameter: nn.Parameter, number: int, part: slice, grad: torch.Tensor) -> None:
        """Make a parameter a view of the flat arrays."""
        flat = self.flats[number]
        parameter.data = flat.compute[part].view(parameter.shape)
        self._places[parameter] = (number, part)
        if not flat.has_copies:
            parameter.grad = grad
        if flat.has_copies or self._buckets is not None:
            parameter.register_post_accumulate_grad_hook(self._collect)

    @torch.no_grad()
    def _collect(self, parameter: torch.Tensor) -> None:
        """Autograd has finished a parameter's gradient of one micro-batch."""
        number, part = self._places[parameter]
        if self.flats[number].has_copies and parameter.grad is not None:
            self.flats[number].grad[part].add_(parameter.grad.reshape(-1))
            parameter.grad = None
        if self._is_last and self._buckets is not None:
            self._buckets.ready(number, part)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """See `Weights`."""
        for flat in self.flats:
            flat.master.grad = flat.grad
        return [
            {"params": [flat.master], "weight_decay": flat.group.decay, "rate": flat.group.rate} for flat in self.flats
        ]

    def clear(self) -> None:
        """See `Weights`."""
        self._is_last = False
        for flat in self.flats:
            flat.grad.zero_()

    def last(self) -> None:
        """See `Weights`."""
        self._is_last = True

    def reduce(self) -> torch.Tensor:
        """See `Weights`."""
        if self._buckets is not None:
            self._buckets.finish()
        squares = [sum_of_squares(flat.grad) for flat in self.flats]
        return torch.stack(squares).sum().sqrt()

    @torch.no_grad()
    def publish(self) -> None:
        """See `Weights`."""
        for flat in self.flats:
            if flat.has_copies:
                flat.compute.copy_(flat.master)

    @torch.no_grad()
    def average(self, share: torch.Tensor) -> None:
        """See `Weights`."""
        for flat in self.flats:
            if flat.average is not None:
                flat.average.lerp_(flat.master, share)

    @torch.no_grad()
    def add(self, is_first: bool) -> None:
        """See `Weights`."""
        for flat in self.flats:
            if flat.average is not None:
                put(flat.average, flat.master, is_first)

    def full(self, averaged: bool, count: int = 1) -> dict[str, torch.Tensor]:
        """See `Weights`."""
        found = {}
        for flat in self.flats:
            average = flat.average if averaged else None
            for name, part, shape in flat.parts():
                source, among = (flat.master.detach(), 1) if average is None else (average, count)
                found[name] = mean(source[part].view(shape), among)
        return found

    def held(self) -> list[Held]:
        """See `Weights`."""
        return [Held(str(number), flat.master, flat.average) for number, flat in enumerate(self.flats)]

    def layout(self) -> str:
        """See `Weights`."""
        return digest([[list(flat.names), [list(shape) for shape in flat.shapes]] for flat in self.flats])


def _flat(
    trained: dict[str, nn.Parameter], group: ParameterGroup, precision: torch.dtype, averaged: torch.dtype | None
) -> Flat:
    parameters = [trained[name] for name in group.names]
    values = torch.cat([parameter.detach().float().reshape(-1) for parameter in parameters])
    return Flat(
        names=group.names,
        shapes=[parameter.shape for parameter in parameters],
        master=nn.Parameter(values, requires_grad=False),
        grad=torch.zeros_like(values),
        compute=values if precision == torch.float32 else values.to(precision),
        group=group,
        average=None if averaged is None else values.to(averaged, copy=True),
    )


class _Buckets:
    """Sums over workers of pieces of the flat gradients, begun as soon as a piece is complete.

    The pieces are summed in one fixed order on all workers, as collective operations must be; a piece that is complete
    before its turn waits.
    """

    def __init__(self, grads: Sequence[torch.Tensor]) -> None:
        self.pieces = [
            (number, start, grad[start : start + BUCKET])
            for number, grad in enumerate(grads)
            for start in range(0, len(grad), BUCKET)
        ]
        self._open = [len(piece) for _, _, piece in self.pieces]
        self._next = 0
        self._running: list[Any] = []

    def ready(self, number: int, part: slice) -> None:
        """Elements ``part`` of array ``number`` will not change any more."""
        for place, (own, start, piece) in enumerate(self.pieces):
            if own == number:
                overlap = min(part.stop, start + len(piece)) - max(part.start, start)
                self._open[place] -= max(0, overlap)
        while self._next < len(self.pieces) and self._open[self._next] <= 0:
            self._begin()

    def _begin(self) -> None:
        self._running.append(dist.all_reduce(self.pieces[self._next][2], async_op=True))
        self._next += 1

    def finish(self) -> None:
        """Sum what is left (gradients of parameters that took no part are 0), and wait."""
        while self._next < len(self.pieces):
            self._begin()
        for running in self._running:
            running.wait()
        self._running, self._next = [], 0
        self._open = [len(piece) for _, _, piece in self.pieces]
