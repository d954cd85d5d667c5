"""Self Positioning: the weights of the members and the length of the step, learned on a sample of the data.

The model is θ_0 + Σ c_i τ_i with M coefficients that follow from M weights a_i and a scale λ. Its loss has M + 1
derivatives: one ordinary backward pass gives the gradient g over all parameters, dL/dc_i = ⟨g, τ_i⟩, and the rest is
the chain rule on M numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch

from boom_ray.config.merge import ProbeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.methods.positioning import chain

B = TypeVar("B")
Tensors = Mapping[str, torch.Tensor]
PIECE = 1 << 22
"""Elements whose products are added at a time, in float64."""


@dataclass(frozen=True)
class Learned:
    """What was learned.

    Attributes:
        weights: a_i, scaled to sum 1.
        scale: λ.
        curve: loss of every step, on the step's examples, without the penalty.
    """

    weights: tuple[float, ...]
    scale: float
    curve: tuple[float, ...]


class Position:
    """A live model on the way between the base and the members.

    Args:
        parameters: the model's, by key, on one device; overwritten.
        base: θ_0 by key.
        differences: τ_i by key, one mapping per member, on the parameters' device.

    Memory: (M + 1) times the parameters, beside the model's own weights and gradients.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], base: Tensors, differences: Sequence[Tensors]
    ) -> None:
        """Nothing is moved yet."""
        self._parameters, self._base, self._differences = parameters, base, differences

    def move(self, coefficients: Sequence[float]) -> None:
        """Set the parameters to θ_0 + Σ c_i τ_i."""
        with torch.no_grad():
            for key, parameter in self._parameters.items():
                parameter.copy_(self._base[key])
                for difference, coefficient in zip(self._differences, coefficients, strict=True):
                    parameter.add_(difference[key], alpha=coefficient)

    def slopes(self) -> torch.Tensor:
        """⟨g, τ_i⟩ of the parameters' gradients, (M,) float64; takes the gradients away."""
        total = torch.zeros(len(self._differences), dtype=torch.float64)
        for key, parameter in self._parameters.items():
            if parameter.grad is not None:
                total += self._products(key, parameter.grad)
                parameter.grad = None
        return total

    @cached_property
    def gram(self) -> torch.Tensor:
        """Inner products of the differences, (M, M) float64."""
        total = torch.zeros(len(self._differences), len(self._differences), dtype=torch.float64)
        for key in self._parameters:
            total += torch.stack([self._products(key, difference[key]) for difference in self._differences])
        return total

    def _products(self, key: str, values: torch.Tensor) -> torch.Tensor:
        return torch.tensor([_dot(values, difference[key]) for difference in self._differences], dtype=torch.float64)


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """Inner product in float64."""
    pieces = zip(left.reshape(-1).split(PIECE), right.reshape(-1).split(PIECE), strict=True)
    return float(sum(float(one.double() @ other.double()) for one, other in pieces))


def learn(
    position: Position,
    members: int,
    batches: Sequence[B],
    loss: Callable[[B], float],
    probe: ProbeConfig,
    report: Callable[[int, float], None] | None = None,
) -> Learned:
    """Learn weights a_i > 0 and scale λ > 0 by Adam on their logarithms, from equal weights and scale 1.

    Minimises mean loss + penalty · λ over θ_0 + λ V, V the `boom_ray.merging.methods.positioning.chain` of the
    differences with weights a. Only ratios of weights matter, so a learning rate is a relative change per step.

    Args:
        position: the live model.
        members: M.
        batches: the sample's steps, taken in turn.
        loss: adds a step's gradients to the live model's parameters and returns its loss.
        probe: ``steps``, ``learning_rate``, ``penalty``.
        report: told (steps done, loss).

    Returns:
        The last weights and scale. The same inputs give the same numbers.

    Raises:
        MergeError: the loss is not finite.

    Source: Li et al., arXiv 2410.15035 (PAPER.md section 6): SGD there, Adam here, which needs no rate of its own for
    weights and scale.
    """
    gram = position.gram
    logs = torch.zeros(members + 1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logs], lr=probe.learning_rate)
    curve: list[float] = []
    for step in range(probe.steps):
        scale = logs[-1].exp()
        coefficients = scale * chain(gram, logs[:-1].exp())
        position.move(coefficients.tolist())
        value = loss(batches[step % len(batches)])
        slopes = position.slopes()
        if not bool(torch.isfinite(slopes).all()):
            raise MergeError(
                f"Learning merge weights: step {step} has loss {value} and slopes {slopes.tolist()}. Lower "
                f"merge.probe.learning_rate, or raise training.temperature."
            )
        adam.zero_grad()
        (coefficients @ slopes + probe.penalty * scale).backward()
        adam.step()
        curve.append(value)
        if report:
            report(step + 1, value)
    weights = torch.softmax(logs[:-1].detach(), 0)
    return Learned(tuple(weights.tolist()), float(logs[-1].detach().exp()), tuple(curve))
