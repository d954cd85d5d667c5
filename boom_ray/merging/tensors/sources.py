"""The vectors of one tensor of models on disk: read strip by strip, and held while they fit.

Memory: at most ``chunk`` bytes per model for a tensor that is held because its method looks at it more than once, and
one strip per model and thread. Tensors larger than a chunk are read once per look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from boom_ray.errors import MergeError
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import STRIP, Pool, Span, Strip, T, Vectors
from boom_ray.merging.tensors.whole import WholeModel


@dataclass(frozen=True)
class Place:
    """A tensor of one model."""

    model: Checkpoint
    info: TensorInfo

    def read(self, span: Span, buffer: torch.Tensor) -> torch.Tensor:
        """A range of its elements, in the file's type or a wider one."""
        return self.model.read(self.info, *span, buffer)


class Held:
    """Buffers for what is read of one tensor, used again for the next one.

    Args:
        chunk_bytes: most bytes held per model.
    """

    def __init__(self, chunk_bytes: int) -> None:
        """Nothing is allocated before a tensor needs it."""
        self.chunk_bytes = chunk_bytes
        self._buffers: list[torch.Tensor] = []

    def buffers(self, count: int, nbytes: int) -> list[torch.Tensor] | None:
        """One buffer per model; None when the tensor is too large to be held."""
        if nbytes > self.chunk_bytes:
            return None
        if len(self._buffers) < count or any(one.numel() < nbytes for one in self._buffers[:count]):
            self._buffers = [torch.empty(nbytes, dtype=torch.uint8) for _ in range(count)]
        return self._buffers[:count]


class FileVectors(Vectors):
    """The vectors of a tensor that lies in files.

    Args:
        key: its name.
        places: the tensor in every member.
        base: the tensor in the base, when vectors are differences from it.
        labels: see `Vectors`.
        dtype: type of the arithmetic.
        pool: threads.
        held: buffers, when the tensor is looked at more than once.
        importance: the tensor's Fisher information in every member.
        activations: (M, columns, columns) products of its inputs.
        whole: statistics of the whole model.
    """

    def __init__(
        self,
        key: str,
        places: Sequence[Place],
        base: Place | None,
        labels: Sequence[str],
        dtype: torch.dtype,
        pool: Pool,
        held: Held | None = None,
        importance: Sequence[Place] = (),
        activations: F64 | None = None,
        whole: WholeModel | None = None,
    ) -> None:
        """Nothing is read yet."""
        super().__init__(key, places[0].info.shape, labels, base is not None, dtype, pool)
        self.products, self.whole_model = activations, whole
        self._places = [*([base] if base else []), *places]
        self._importance = list(importance)
        self._width = max(int(place.model.read_type(place.info).itemsize) for place in self._places)
        self._held = held.buffers(len(self._places), self.numel * self._width) if held else None
        self._kept: dict[Span, list[torch.Tensor]] = {}
        self.bytes_read = 0

    def blame(self, index: int) -> str:
        """The member and its folder."""
        model = self._places[index + 1 if self.has_base else index].model
        return f"{model.label} ({model.folder})"

    def map(self, function: Callable[[Strip], T], by_rows: bool = False, checked: bool = False) -> list[T]:
        """See `Vectors.map`; counts what is read."""
        if any(span not in self._kept for span in self.spans(by_rows)):
            self.bytes_read += sum(place.info.nbytes for place in [*self._places, *self._importance])
        return super().map(function, by_rows, checked)

    def load(self, span: Span) -> Strip:
        """Elements of all vectors in the type of the arithmetic, in buffers of the calling thread."""
        values = self._read(span)
        length = span[1] - span[0]
        rows = self._rows("work", len(values), length)
        for row, value in zip(rows, values, strict=True):
            row.copy_(value)
        importance = self._load_importance(span) if self._importance else None
        if not self.has_base:
            return Strip(span[0], rows, None, importance)
        return Strip(span[0], rows[1:].sub_(rows[0]), rows[0], importance)

    def _rows(self, name: str, count: int, length: int) -> torch.Tensor:
        """(count, length) in the type of the arithmetic."""
        size = int(self.dtype.itemsize)
        return self.pool.buffer(name, count * length * size).view(self.dtype).view(count, length)

    def _read(self, span: Span) -> list[torch.Tensor]:
        kept = self._kept.get(span)
        if kept is None:
            kept = [self._read_one(index, place, span) for index, place in enumerate(self._places)]
            if self._held is not None:
                self._kept[span] = kept
        return kept

    def _read_one(self, index: int, place: Place, span: Span) -> torch.Tensor:
        """One model's elements, in the buffer that holds them for later looks or in one of the thread."""
        stored, dtype = int(place.info.dtype.itemsize), place.model.read_type(place.info)
        if self._held is None:
            return place.read(span, self.pool.buffer(f"raw{index}", (span[1] - span[0]) * stored))
        size = int(dtype.itemsize)
        held = self._held[index][span[0] * size : span[1] * size]
        if dtype == place.info.dtype:
            return place.read(span, held)
        scratch = self.pool.buffer(f"raw{index}", (span[1] - span[0]) * stored)
        return held.view(dtype).copy_(place.read(span, scratch))  # an adapter's product is a tensor of its own

    def _load_importance(self, span: Span) -> torch.Tensor:
        rows = self._rows("importance", len(self._importance), span[1] - span[0])
        for index, (row, place) in enumerate(zip(rows, self._importance, strict=True)):
            size = (span[1] - span[0]) * int(place.info.dtype.itemsize)
            row.copy_(place.read(span, self.pool.buffer(f"importance{index}", size)))
            if not (float(row.min()) >= 0 and math.isfinite(float(row.sum(dtype=torch.float64)))):
                raise MergeError(
                    f"Fisher information of {place.model.label} has a negative value, NaN or infinity in tensor "
                    f"{self.name} ({place.info.path}); gather it again."
                )
        return rows


def common_values(places: Sequence[Place], key: str) -> Iterator[tuple[int, torch.Tensor]]:
    """Pieces (start, values) of an integer tensor that all members share; there is no average of indices.

    Raises:
        MergeError: the members differ.
    """
    first = places[0]
    size = STRIP * int(first.info.dtype.itemsize)
    buffers = [torch.empty(size, dtype=torch.uint8) for _ in range(2)]
    for start in range(0, first.info.numel, STRIP):
        span = (start, min(start + STRIP, first.info.numel))
        values = first.read(span, buffers[0])
        for other in places[1:]:
            if not torch.equal(other.read(span, buffers[1]), values):
                raise MergeError(
                    f"Integer tensor {key} differs between {first.model.label} and {other.model.label}; integers are "
                    f"taken over and not merged, so all members must have the same."
                )
        yield start, values


def arithmetic(places: Sequence[Place], wanted: str) -> torch.dtype:
    """Type of the arithmetic on one tensor: as told, or float32 when all models store 16 bits and else float64."""
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    return torch.float32 if all(int(place.info.dtype.itemsize) <= 2 for place in places) else torch.float64
