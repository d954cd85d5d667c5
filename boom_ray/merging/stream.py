"""The merge itself: tensor by tensor and chunk by chunk, so that memory does not grow with the model.

Per tensor: one pass for its Gram matrix (left out by methods that need none), then one that adds up. A tensor that fits
in a chunk is read once. All arithmetic is float64, element by element, and is rounded once, to the output type; so the
bytes do not depend on chunk size or threads, and members that are equal give exactly that tensor.

Memory: one chunk per member (and base), one for the output, and `STRIP` float64 elements per member.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boom_ray.errors import MergeError
from boom_ray.events import Event, Report
from boom_ray.merging.agreement import align_base
from boom_ray.merging.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.methods import F64
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.statistics import BLOCK, block_grams, total_gram
from boom_ray.merging.writer import SHARD_BYTES, Entry, SafetensorsWriter, plan_shards, write_index

STRIP = 64 * BLOCK
"""Elements turned into float64 at a time; 2 MiB per member, which stays in the cache."""
WIDEST = 8
"""Bytes of the widest element, so a buffer of as many blocks holds one block of any type."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Merged:
    """What was written: tensors, parameters, bytes, and each tensor's coefficients (members in order)."""

    tensors: int
    parameters: int
    bytes_read: int
    bytes_written: int
    coefficients: dict[str, list[float]]


class TensorMerger:
    """Merged values of any tensor of the members, chunk by chunk.

    Args:
        members: checkpoints that agree (`check_members`).
        base: the base, when the recipe works on differences from it.
        recipe: method and numbers.
        chunk_bytes: most bytes read at a time from one member.
    """

    def __init__(
        self, members: Sequence[Checkpoint], base: Checkpoint | None, recipe: Recipe, chunk_bytes: int
    ) -> None:
        """Align the base and allocate the buffers."""
        self._sources = [*([base] if base else []), *members]
        self._has_base = base is not None
        self._aligned = align_base(base, members[0]) if base else {}
        self._members = list(members)
        self._recipe = recipe
        largest = max(
            (max(info.nbytes, 4 * info.numel) for one in self._sources for info in one.tensors.values()), default=0
        )
        unit = BLOCK * WIDEST
        self._blocks = WIDEST * max(1, min(chunk_bytes // unit, -(-largest // unit)))
        self._buffers = [torch.empty(self._blocks * BLOCK, dtype=torch.uint8) for _ in self._sources]
        self._output = torch.empty(self._blocks * BLOCK, dtype=torch.uint8)
        self._work = torch.empty((len(self._sources), STRIP), dtype=torch.float64)
        self._held: tuple[str, Span] | None = None
        self._loaded: list[torch.Tensor] = []
        self.bytes_read = 0
        self.coefficients: dict[str, list[float]] = {}

    def pieces(self, key: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """Merged values of one tensor in order, flat, in ``dtype``; each piece is valid until the next one.

        Raises:
            MergeError: a member holds NaN or infinity there, integer tensors differ, or ``dtype`` cannot hold a value.
        """
        if not self._members[0].tensors[key].dtype.is_floating_point:
            yield from self._common(key)
            return
        places = [*([self._aligned[key]] if self._has_base else []), *(one.tensors[key] for one in self._members)]
        spans = self._spans(places, dtype)
        needs_gram = self._recipe.entry.needs_gram
        gram = self._gram(key, places, spans) if needs_gram else np.zeros((len(self._members),) * 2)
        coefficients = self._recipe.coefficients(gram)
        self.coefficients[key] = coefficients.tolist()
        for span in spans:
            loaded = self._load(places, span)
            out = self._output[: (span[1] - span[0]) * int(dtype.itemsize)].view(dtype)
            for start, stop in _cut(len(out), STRIP):
                vectors = self._vectors(loaded, (start, stop), key, checked=needs_gram)
                out[start:stop] = _combine(vectors, coefficients, self._has_base)[: stop - start]
                if not _all_finite(out[start:stop]):
                    raise MergeError(f"Merged tensor {key} does not fit into {dtype}; set merge.output_dtype=float32.")
            yield out

    def _common(self, key: str) -> Iterator[torch.Tensor]:
        """An integer tensor: the members' common value; there is no meaningful average of indices."""
        places = [one.tensors[key] for one in self._members]
        for span in self._spans(places, places[0].dtype):
            loaded = [
                one.read(place, *span, buffer)
                for one, place, buffer in zip(self._members, places, self._buffers, strict=False)
            ]
            self._held = None
            self.bytes_read += sum(values.nbytes for values in loaded)
            for one, values in zip(self._members[1:], loaded[1:], strict=True):
                if not torch.equal(values, loaded[0]):
                    raise MergeError(
                        f"Integer tensor {key} differs between {self._members[0].label} and {one.label}; integers are "
                        f"taken over and not merged, so all members must have the same."
                    )
            yield loaded[0]

    def _spans(self, places: Sequence[TensorInfo], dtype: torch.dtype) -> list[Span]:
        """Chunks of a tensor: whole blocks, so that statistics do not depend on the chunk size."""
        widest = max(int(one.itemsize) for one in (dtype, *(place.dtype for place in places)))
        return list(_cut(places[0].numel, self._blocks // widest * BLOCK))

    def _load(self, places: Sequence[TensorInfo], span: Span) -> list[torch.Tensor]:
        """The span of all sources in their own types; what was read last is not read again."""
        held = (places[-1].key, span)
        if self._held != held:
            self._loaded = [
                source.read(place, *span, buffer)
                for source, place, buffer in zip(self._sources, places, self._buffers, strict=True)
            ]
            self._held = held
            self.bytes_read += sum(values.nbytes for values in self._loaded)
        return self._loaded

    def _vectors(self, loaded: Sequence[torch.Tensor], strip: Span, key: str, checked: bool) -> torch.Tensor:
        """Float64 rows (base first, then members or their differences from it), padded with zeros to whole blocks."""
        length = strip[1] - strip[0]
        rows = self._work[:, : -(-length // BLOCK) * BLOCK]
        rows[:, length:] = 0
        for row, values in zip(rows, loaded, strict=True):
            row[:length] = values[strip[0] : strip[1]]
        if not checked:
            self._check_finite(rows, key)
        if self._has_base:
            rows[1:].sub_(rows[0])
        return rows

    def _check_finite(self, rows: torch.Tensor, key: str) -> None:
        for source, row in zip(self._sources, rows, strict=True):
            if not _all_finite(row):
                raise MergeError(
                    f"Tensor {key} of {source.label} ({source.folder}) holds NaN or infinity: that training diverged. "
                    f"Leave this member out or train it again with a lower learning rate."
                )

    def _gram(self, key: str, places: Sequence[TensorInfo], spans: Sequence[Span]) -> F64:
        parts = []
        for span in spans:
            loaded = self._load(places, span)
            for strip in _cut(span[1] - span[0], STRIP):
                rows = self._vectors(loaded, strip, key, checked=False)
                parts.append(block_grams(rows[1:] if self._has_base else rows))
        return total_gram(parts, len(self._members))


def _cut(length: int, step: int) -> Iterator[Span]:
    for start in range(0, length, step):
        yield start, min(start + step, length)


def _all_finite(values: torch.Tensor) -> bool:
    """NaN and infinity survive a sum, and a sum costs a tenth of looking at every element."""
    return math.isfinite(values.sum(dtype=torch.float64)) or bool(torch.isfinite(values).all())


def _combine(rows: torch.Tensor, coefficients: F64, has_base: bool) -> torch.Tensor:
    """Σ a_i row_i, plus the base in row 0 if there is one; overwrites ``rows``.

    Product and sum are separate operations: each is rounded by itself on every machine, where a fused one would depend
    on the vector width.
    """
    total = rows[0] if has_base else None
    for row, coefficient in zip(rows[1:] if has_base else rows, coefficients.tolist(), strict=True):
        if coefficient != 0:
            row.mul_(coefficient)
            total = row if total is None else total.add_(row)
    return torch.zeros_like(rows[0]) if total is None else total


def output_type(info: TensorInfo, wanted: str) -> torch.dtype:
    """Type of a merged tensor: integers keep theirs, floating ones get the wanted one, or keep theirs (``members``)."""
    if wanted == "members" or not info.dtype.is_floating_point:
        return info.dtype
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def write_merged(
    merger: TensorMerger,
    first: Checkpoint,
    output_dtype: str,
    target: Path,
    report: Report,
    shard_bytes: int = SHARD_BYTES,
) -> Merged:
    """Merge all tensors and write them module by module, in files laid out like the first member's folder.

    Args:
        merger: gives the values.
        first: gives names, shapes and modules.
        output_dtype: see `output_type`.
        target: folder to write into.
        report: told the bytes of the merged model that are done.
        shard_bytes: most bytes per file.
    """
    infos = list(first.tensors.values())
    entries = [Entry(info.key, output_type(info, output_dtype), info.shape) for info in infos]
    total, done = sum(entry.nbytes for entry in entries), 0
    for module in sorted({info.module for info in infos}):
        names = {info.name: info for info in infos if info.module == module}
        folder = target / module
        folder.mkdir(parents=True, exist_ok=True)
        own = [Entry(name, output_type(info, output_dtype), info.shape) for name, info in names.items()]
        shards = plan_shards(own, shard_bytes)
        for file_name, shard in shards:
            with SafetensorsWriter(folder / file_name, shard) as writer:
                for entry in shard:
                    for piece in merger.pieces(names[entry.name].key, entry.dtype):
                        writer.write(piece)
                        if (done + piece.nbytes) * 100 // total > done * 100 // total:
                            report(Event("merge", "merged", done + piece.nbytes, total))
                        done += piece.nbytes
        write_index(folder, shards)
    count = sum(info.numel for info in infos if info.dtype.is_floating_point)
    return Merged(len(infos), count, merger.bytes_read, total, merger.coefficients)
