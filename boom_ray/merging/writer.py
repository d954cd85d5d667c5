"""Writing safetensors piece by piece: the header first, since all shapes are known, then the tensors one after another.

The library's own writer wants all tensors in memory; this one needs only the piece that is being written.
Format: https://huggingface.co/docs/safetensors/index#format (8 bytes length, JSON header, data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch

from boom_ray.merging.checkpoint import NAMES
from boom_ray.model.folder import INDEX, SINGLE

SHARD_BYTES = 5_000_000_000
"""Most bytes of tensors in one file; one tensor larger than that has a file of its own."""


@dataclass(frozen=True)
class Entry:
    """One tensor to be written: name, type and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its data; bytes."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


class SafetensorsWriter:
    """One file, written front to back; a context manager that fails on leaving when bytes are missing.

    Args:
        path: file to create.
        entries: the tensors in the order in which their data will come; wide types first keeps all data aligned.
    """

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        """Create the file and write its header."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for entry in entries:
            span = [offset, offset + entry.nbytes]
            header[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": span}
            offset = span[1]
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._path, self._left = path, offset
        self._stream: BinaryIO = path.open("wb", buffering=0)
        self._put(memoryview(len(text).to_bytes(8, "little") + text))

    def write(self, values: torch.Tensor) -> None:
        """Append elements, flat and contiguous, in the type of the tensor they belong to."""
        data = memoryview(values.view(torch.uint8).numpy())
        self._left -= len(data)
        self._put(data)

    def _put(self, data: memoryview) -> None:
        while len(data):
            data = data[self._stream.write(data) :]

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None and self._left:
            raise AssertionError(f"{self._path}: {self._left} bytes were announced and not written")


def plan_shards(entries: Sequence[Entry], limit: int = SHARD_BYTES) -> list[tuple[str, list[Entry]]]:
    """File names and their tensors: wide types first, then by name, cut where a file would exceed ``limit`` bytes."""
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in sorted(entries, key=lambda entry: (-int(entry.dtype.itemsize), entry.name)):
        if shards[-1] and size + entry.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    if len(shards) == 1:
        return [(SINGLE, shards[0])]
    count = len(shards)
    return [(f"model-{number:05}-of-{count:05}.safetensors", shard) for number, shard in enumerate(shards, start=1)]


def write_index(folder: Path, shards: Sequence[tuple[str, Sequence[Entry]]]) -> None:
    """Write the index of a sharded model; a single file needs none."""
    if len(shards) == 1:
        return
    index = {
        "metadata": {"total_size": sum(entry.nbytes for _, shard in shards for entry in shard)},
        "weight_map": {entry.name: name for name, shard in shards for entry in shard},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
