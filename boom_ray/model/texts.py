"""Token arrays as the input of one forward pass: padded to one length, or one after the other without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.artifacts.tokens import I32

I64 = npt.NDArray[np.int64]
ALIKE = 16
CUT_COST = 96  # what one more forward pass costs, in tokens of one: measured with MiniLM on two cores


@dataclass(frozen=True)
class TextBatch:
    """Texts of one forward pass.

    Shapes: n texts of t tokens at most, T tokens in all. Padded: ``ids`` and ``mask`` are (n, t). Packed: ``ids`` and
    ``positions`` are (1, T), ``offsets`` is there, ``mask`` is not.

    Attributes:
        ids: int64 token ids.
        mask: int64, 1 for tokens, 0 for padding on the right; None if no text is padded.
        positions: int64 place of every token in its text, from 0.
        offsets: (n+1,) int32; text i is tokens offsets[i] to offsets[i+1].
        count: n.
        longest: t.
        tokens: T.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor | None
    offsets: torch.Tensor | None
    count: int
    longest: int
    tokens: int

    @property
    def slots(self) -> int:
        """Tokens with padding."""
        return int(self.ids.numel())

    def to(self, device: torch.device) -> TextBatch:
        """On a device; pinned memory is copied without waiting."""
        if device.type == "cpu":
            return self
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **moved)

    def pin(self) -> TextBatch:
        """In pinned memory, from which a GPU copies while it computes."""
        pinned = {
            field.name: value.pin_memory()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return replace(self, **pinned)


def padded(texts: Sequence[I32], pad_id: int = 0) -> TextBatch:
    """Texts as the rows of a rectangle, padded on the right."""
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    width = int(lengths.max())
    real = np.arange(width) < lengths[:, None]
    ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    ids[real] = np.concatenate(texts)
    mask = None if real.all() else torch.from_numpy(real.astype(np.int64))
    return TextBatch(torch.from_numpy(ids), mask, None, None, len(texts), width, int(lengths.sum()))


def packed(texts: Sequence[I32]) -> TextBatch:
    """Texts one after the other in one row."""
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    positions = np.arange(total) - np.repeat(offsets[:-1], lengths)
    return TextBatch(
        ids=torch.from_numpy(np.concatenate(texts).astype(np.int64)[None]),
        mask=None,
        positions=torch.from_numpy(positions[None]),
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        count=len(texts),
        longest=int(lengths.max()),
        tokens=total,
    )


def cut(lengths: I64, budget: int, is_packed: bool) -> list[slice]:
    """Divide texts, longest first, into forward passes.

    Padded: the cuts of least cost, a pass costing its tokens with padding and `CUT_COST` more (dynamic programming over
    all cuts). Packed: as few passes as the budget allows, of about equal size; but many texts of one length, as those
    that were cut at the limit, come in passes of their own, `ALIKE` at a time, for which GPUs have faster attention.

    Args:
        lengths: (n,) tokens of the texts, descending.
        budget: most tokens of a pass, padding included; a longer text has a pass of its own.
        is_packed: texts will not be padded.

    Returns:
        Slices of the n texts that cover them in order.
    """
    if not len(lengths):
        return []
    return _packed_cuts(lengths, budget) if is_packed else _cheapest_cuts(lengths, budget)


def _packed_cuts(lengths: I64, budget: int) -> list[slice]:
    alike = int(np.count_nonzero(lengths == lengths[0]))
    if alike < len(lengths):
        alike = alike // ALIKE * ALIKE if alike * lengths[0] >= budget // 4 else 0
    most = max(1, budget // int(lengths[0]))
    if alike < len(lengths) and most > ALIKE:
        most = most // ALIKE * ALIKE
    passes = -(-alike // most)
    cuts = [slice(alike * number // passes, alike * (number + 1) // passes) for number in range(passes)]
    if passes > 1 and alike < len(lengths):  # whole passes and a rest, so that few different shapes occur
        cuts = [slice(start, min(alike, start + most)) for start in range(0, alike, most)]
    rest = _even_cuts(lengths[alike:], budget) if alike < len(lengths) else []
    return cuts + [slice(alike + part.start, alike + part.stop) for part in rest]


def _even_cuts(lengths: I64, budget: int) -> list[slice]:
    goal = float(lengths.sum()) / max(1, int(np.ceil(lengths.sum() / budget)))
    cuts, start, size = [], 0, 0
    for place, length in enumerate(lengths.tolist()):
        if place > start and (size + length > budget or size >= goal):
            cuts.append(slice(start, place))
            start, size = place, 0
        size += length
    return [*cuts, slice(start, len(lengths))]


def _cheapest_cuts(lengths: I64, budget: int) -> list[slice]:
    count = len(lengths)
    least = np.full(count + 1, np.inf)  # of the texts from here to the end
    least[count] = 0.0
    end = np.zeros(count, dtype=np.int64)
    for start in range(count - 1, -1, -1):
        width = int(lengths[start])
        most = max(1, min(count - start, budget // width))
        costs = np.arange(1, most + 1) * width + CUT_COST + least[start + 1 : start + most + 1]
        best = int(np.argmin(costs))
        least[start], end[start] = costs[best], start + best + 1
    cuts, start = [], 0
    while start < count:
        cuts.append(slice(start, int(end[start])))
        start = int(end[start])
    return cuts
