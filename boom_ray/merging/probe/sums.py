"""What is added up while a member runs over steps of the sample: squared gradients, or products of activations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from boom_ray.artifacts.batches import Batch
from boom_ray.artifacts.tokens import I32
from boom_ray.errors import MergeError
from boom_ray.merging.probe.members import Running
from boom_ray.merging.probe.sample import StepLoss
from boom_ray.model.texts import padded


class Sums(ABC):
    """Sums over some steps of the sample.

    Attributes:
        count: what they are divided by in the end, additive over steps.
        loss: sum of the examples' losses; None if the loss is not computed.
        tensors: key to sum, float32.
    """

    def __init__(self, running: Running, loss: StepLoss) -> None:
        """Nothing is added yet."""
        self.running, self.step_loss = running, loss
        self.count = 0
        self.loss: float | None = None
        self.tensors: dict[str, torch.Tensor] = {}

    @abstractmethod
    def add(self, batches: Iterable[Batch]) -> None:
        """Run the member over some steps."""

    @abstractmethod
    def close(self) -> None:
        """Leave the member as it was."""


class FisherSums(Sums):
    """Squared gradients of the training loss: the diagonal of the empirical Fisher information.

    The loss of a contrastive step is no sum of independent terms, so gradients are taken per step: with g_s the
    gradient of step s, the mean over its n_s examples, F = Σ_s (n_s g_s)² / Σ_s n_s. For steps of one example that is
    the mean of squared gradients; for independent examples with gradients of mean zero it has the same expectation
    whatever the size of the steps.

    Source: Matena & Raffel 2021, arXiv 2111.09832, section 3 (true labels for sampled ones); n_s g_s² of a batch as an
    estimate: Liu et al. 2023 (Sophia), arXiv 2305.14342, section 2.3.

    Args:
        running: the member.
        loss: the training loss.

    Memory: weights, gradients and sums, 12 bytes per parameter, beside one micro-batch's activations.
    """

    def __init__(self, running: Running, loss: StepLoss) -> None:
        """All sums are zero."""
        super().__init__(running, loss)
        self._parameters = running.trainable()
        self.tensors = {key: torch.zeros_like(one, requires_grad=False) for key, one in self._parameters.items()}

    def add(self, batches: Iterable[Batch]) -> None:
        """One backward pass per step; ``count`` counts examples.

        Raises:
            MergeError: the loss is not finite.
        """
        for batch in batches:
            loss = self.step_loss.backward(self.running.encoder, batch)
            if not math.isfinite(loss):
                raise MergeError(f"The loss on dataset {batch.dataset} is {loss}; the member's weights are damaged.")
            self.count += batch.size
            self.loss = (self.loss or 0.0) + loss * batch.size
            with torch.no_grad():
                for key, parameter in self._parameters.items():
                    if parameter.grad is not None:
                        self.tensors[key].addcmul_(parameter.grad, parameter.grad, value=float(batch.size) ** 2)
                        parameter.grad = None

    def close(self) -> None:
        """Leave no gradients behind, not even of a step that failed."""
        for parameter in self._parameters.values():
            parameter.grad = None


class ActivationSums(Sums):
    """Products xxᵀ of the inputs of every linear layer, added over all tokens of the sample's texts.

    Every distinct text of a step counts once. Texts of one length run together, so that there is no padding whose
    activations would have to be told apart, whatever a layer does with its inputs' shape. Layers that no token reaches
    and those that no embedding depends on (a pooler) are left out. One that is used for some tokens only (an expert) is
    divided by all tokens as well, which is right for RegMean: what counts is how often each member uses it.

    Source: Jin et al. 2023, arXiv 2212.09849, section 3.

    Args:
        running: the member.
        loss: precision and size of micro-batches; the loss itself is not computed.

    Memory: weights, and columns² float32 per linear layer.
    """

    def __init__(self, running: Running, loss: StepLoss) -> None:
        """Nothing is added yet."""
        super().__init__(running, loss)
        keys = {parameter: key for key, parameter in running.trainable().items()}
        self._hooks = [
            module.register_forward_pre_hook(self._hook(keys[module.weight]), with_kwargs=True)
            for module in running.encoder.modules()
            if isinstance(module, nn.Linear) and module.weight in keys
        ]

    def _hook(self, key: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def take(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            values = inputs[0] if inputs else named["input"]
            rows = values.detach().reshape(-1, values.shape[-1]).float()
            if key not in self.tensors:
                self.tensors[key] = rows.new_zeros(rows.shape[1], rows.shape[1])
            with torch.autocast(rows.device.type, enabled=False):
                self.tensors[key].addmm_(rows.T, rows)

        return take

    def add(self, batches: Iterable[Batch]) -> None:
        """One forward pass over the texts of all steps; ``count`` counts tokens."""
        texts = [text for batch in batches for text in batch.texts]
        encoder, settings = self.running.encoder, self.step_loss.step_settings(self.running.encoder)
        for group in equal_lengths(texts, settings.micro_batch_tokens):
            piece = padded(group, encoder.pad_id).to(encoder.device)
            with torch.no_grad(), torch.autocast(piece.ids.device.type, torch.bfloat16, enabled=settings.autocast):
                encoder(piece)
            self.count += piece.tokens

    def close(self) -> None:
        """Take the hooks out."""
        for hook in self._hooks:
            hook.remove()


def equal_lengths(texts: Sequence[I32], tokens: int) -> Iterator[list[I32]]:
    """Groups of texts of one length, longest first, of at most so many tokens (but at least one text)."""
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    for width in np.unique(lengths)[::-1].tolist():
        places = np.flatnonzero(lengths == width)
        step = max(1, tokens // width)
        for start in range(0, len(places), step):
            yield [texts[place] for place in places[start : start + step]]
