"""The loss of one step and its gradients: what training and every other user of its loss have in common.

One forward pass over all distinct texts of a step, sorted by length and cut into micro-batches; the loss of the whole
step from their embeddings; gradients back through the micro-batches, one after the other.

What does not fit into memory is computed twice (GradCache; Gao et al. 2021, arXiv 2101.06983): micro-batches beyond
``kept_tokens`` are embedded without keeping activations, and once more when their turn in the backward pass comes, with
the same dropout. Gradients are added in the same order either way, so they are the same bit for bit on a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boom_ray.artifacts.batches import Batch
from boom_ray.artifacts.tokens import I32
from boom_ray.model.encoder import Encoder
from boom_ray.model.layout import Layout
from boom_ray.model.losses.policy import Facts, Matryoshka, StepPolicy, loss_and_gradient
from boom_ray.model.texts import TextBatch, cut

Mark = Callable[[str], None]


@dataclass(frozen=True)
class StepSettings:
    """How a step is computed; nothing here changes the result beyond rounding.

    Attributes:
        layout: form of the texts.
        pad_id: token that fills shorter texts.
        micro_batch_tokens: most tokens of one forward pass, padding included.
        kept_tokens: most tokens, padding included, whose activations are kept.
        autocast: run float32 weights in bfloat16.
        pinned: put texts into pinned memory, for GPUs.
    """

    layout: Layout = Layout.PLAIN
    pad_id: int = 0
    micro_batch_tokens: int = 4096
    kept_tokens: int = sys.maxsize
    autocast: bool = False
    pinned: bool = False

    def text(self) -> str:
        """The same for people."""
        return f"{self.layout.value} texts, {self.micro_batch_tokens:,} tokens at a time, {self.kept_tokens:,} kept"


@dataclass(frozen=True)
class Work:
    """A step ready to be computed.

    Attributes:
        batch: this worker's share of the step.
        pieces: micro-batches, longest texts first.
        place: (n,) the place of every distinct text of the batch in the pieces' concatenation.
        kept: so many of the pieces keep their activations.
        tokens: tokens of the texts.
        slots: tokens with padding.
    """

    batch: Batch
    pieces: tuple[TextBatch, ...]
    place: torch.Tensor
    kept: int
    tokens: int
    slots: int


@dataclass(frozen=True)
class Hooks:
    """What the user of a step does at its points; all may be left out.

    Attributes:
        gather: joins the (b, …) tensors of all workers to (B, …), see `boom_ray.training.group.Group.gather`; gradients
            need not flow through it.
        own: this worker's rows of the joined tensor; None: all.
        seed: called with a piece's number before each of its forward passes, for dropout.
        last: called before the last backward pass.
        mark: told the name of the part that begins: forward, communication, loss, backward.
    """

    gather: Callable[[torch.Tensor], torch.Tensor] | None = None
    own: slice | None = None
    seed: Callable[[int], None] | None = None
    last: Callable[[], None] | None = None
    mark: Mark | None = None


def prepare(batch: Batch, settings: StepSettings) -> Work:
    """Cut a batch's texts into micro-batches; runs beside training, in the thread that reads ahead."""
    lengths = np.fromiter((len(text) for text in batch.texts), np.int64, len(batch.texts))
    longest_first = np.argsort(-lengths, kind="stable")
    pieces = []
    for part in cut(lengths[longest_first], settings.micro_batch_tokens, settings.layout is Layout.PACKED):
        piece = settings.layout.batch([batch.texts[place] for place in longest_first[part]], settings.pad_id)
        pieces.append(piece.pin() if settings.pinned else piece)
    place = np.empty(len(lengths), dtype=np.int64)
    place[longest_first] = np.arange(len(lengths))
    slots = np.cumsum([piece.slots for piece in pieces])
    kept = int(np.searchsorted(slots, settings.kept_tokens, side="right"))
    return Work(batch, tuple(pieces), torch.from_numpy(place), kept, int(lengths.sum()), int(slots[-1]))


def backward(
    encoder: Encoder,
    work: Work,
    policy: StepPolicy,
    settings: StepSettings,
    matryoshka: Matryoshka | None = None,
    hooks: Hooks | None = None,
    scale: float = 1.0,
) -> torch.Tensor:
    """Add the gradients of the step's loss, those of this worker's texts, to the parameters' ``grad``.

    Args:
        encoder: the model, on its device.
        work: the step.
        policy: its loss.
        settings: those that the work was prepared with.
        matryoshka: widths at which the loss is taken, too.
        hooks: see `Hooks`.
        scale: factor of the gradients.

    Returns:
        The loss of the whole step, a scalar on the model's device; nothing here waits for a GPU.
    """
    hooks = hooks or Hooks()
    mark = hooks.mark or _ignore
    mark("forward")
    vectors = _embed_all(encoder, work, settings, hooks)
    place, index = (one.to(encoder.device, non_blocking=True) for one in (work.place, work.batch.index))
    unique = torch.cat([piece.detach() for piece in vectors])[place]
    own = unique[index]
    mark("communication")
    gathered = hooks.gather(own) if hooks.gather else own
    mark("loss")
    facts = Facts.of(work.batch).to(encoder.device)
    loss, gradient = loss_and_gradient(gathered, facts, policy, matryoshka)
    mark("backward")
    gradients = _per_piece((gradient if hooks.own is None else gradient[hooks.own]) * scale, unique, index, place, work)
    for number, (vector, gradient) in enumerate(zip(vectors, gradients, strict=True)):
        if number >= work.kept:
            vector = _embed(encoder, work.pieces[number], number, settings, hooks)  # noqa: PLW2901
        if hooks.last is not None and number == len(vectors) - 1:
            hooks.last()
        vectors[number] = vector.detach()  # the graph goes when its turn is over
        torch.autograd.backward(vector, gradient)
    return loss


def _embed_all(encoder: Encoder, work: Work, settings: StepSettings, hooks: Hooks) -> list[torch.Tensor]:
    """Embeddings of all pieces; those of the first ``kept`` with their graphs. The others come first, being lighter."""
    vectors: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for number in range(work.kept, len(work.pieces)):
            vectors[number] = _embed(encoder, work.pieces[number], number, settings, hooks)
    for number in range(work.kept):
        vectors[number] = _embed(encoder, work.pieces[number], number, settings, hooks)
    return [vectors[number] for number in range(len(work.pieces))]


def _embed(encoder: Encoder, piece: TextBatch, number: int, settings: StepSettings, hooks: Hooks) -> torch.Tensor:
    if hooks.seed is not None:
        hooks.seed(number)
    device = encoder.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast):
        found: torch.Tensor = encoder(piece.to(device))
    return found


def _per_piece(
    gradient: torch.Tensor, unique: torch.Tensor, index: torch.Tensor, place: torch.Tensor, work: Work
) -> list[torch.Tensor]:
    """The (b, 2+K, d) gradient by occurrence as one of every distinct text, in the order of the pieces."""
    summed = torch.zeros_like(unique)
    summed.index_add_(0, index.reshape(-1), gradient.reshape(-1, gradient.shape[-1]))
    counts = [piece.count for piece in work.pieces]
    ordered = summed.new_zeros(sum(counts), summed.shape[-1])
    ordered[place] = summed
    return list(ordered.split(counts))


def embed(encoder: Encoder, texts: Sequence[I32], settings: StepSettings) -> torch.Tensor:
    """(n, d) embeddings of token arrays, without gradients."""
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    longest_first = np.argsort(-lengths, kind="stable")
    found = []
    with torch.no_grad():
        for part in cut(lengths[longest_first], settings.micro_batch_tokens, settings.layout is Layout.PACKED):
            piece = settings.layout.batch([texts[place] for place in longest_first[part]], settings.pad_id)
            found.append(_embed(encoder, piece, 0, settings, Hooks()))
    vectors = torch.cat(found)
    ordered = torch.empty_like(vectors)
    ordered[torch.from_numpy(longest_first).to(vectors.device)] = vectors
    return ordered


def bytes_per_token(encoder: Encoder, settings: StepSettings, longest: int) -> float:
    """Bytes that autograd keeps per token of a text of ``longest`` tokens, by embedding one and counting.

    The same number in every run on one kind of machine, so that what is kept never differs between runs.
    """
    sizes: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    length = max(2, min(longest, encoder.longest or longest))
    text = np.full(length, (encoder.pad_id + 1) % int(encoder.core.config.vocab_size), dtype=np.int32)
    piece = settings.layout.batch([text], settings.pad_id)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, _same):
        graph = _embed(encoder, piece, 0, settings, Hooks())  # keeps what is counted, so no storage is counted twice
    del graph
    return sum(sizes.values()) / length


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _ignore(part: str) -> None:
    pass
