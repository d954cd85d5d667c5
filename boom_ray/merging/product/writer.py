"""Writing safetensors piece by piece: the header first, since all shapes are known, then any range of any tensor.

The library's own writer wants all tensors in memory; this one needs only the pieces that are being written.
Format: https://huggingface.co/docs/safetensors/index#format (8 bytes length, JSON header, data).
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from boom_ray.merging.reading.checkpoint import NAMES
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
    """One file whose tensors are filled in any order, by several threads; a context manager.

    Leaving it fails when bytes are missing, so a tensor that was forgotten never becomes zeros.

    Args:
        path: file to create.
        entries: the tensors in the order in which they lie in the file; wide types first keeps all data aligned.
    """

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        """Create the file in its full size and write its header."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        self._places: dict[str, tuple[Entry, int]] = {}
        for entry in entries:
            span = [offset, offset + entry.nbytes]
            header[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": span}
            self._places[entry.name] = (entry, offset)
            offset = span[1]
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._path, self._start = path, 8 + len(text)
        self._left = {entry.name: entry.nbytes for entry in entries}
        self._lock = threading.Lock()
        self._file = path.open("wb", buffering=0)
        self._file.truncate(self._start + offset)
        self._write(memoryview(len(text).to_bytes(8, "little") + text), 0)

    def put(self, name: str, start: int, values: torch.Tensor) -> None:
        """Write elements of one tensor; every element must be written once.

        Args:
            name: which tensor.
            start: index of the first element, the tensor taken flat.
            values: (n,) contiguous on the CPU, in the tensor's type.

        Raises:
            OSError: the disk is full or broken.
        """
        entry, offset = self._places[name]
        data = memoryview(values.view(torch.uint8).numpy())
        place = start * int(entry.dtype.itemsize)
        assert values.dtype == entry.dtype, f"{name} is {entry.dtype}, and {values.dtype} was given"
        assert 0 <= place <= place + len(data) <= entry.nbytes, f"{name} ends before element {start + len(values)}"
        self._write(data, self._start + offset + place)
        with self._lock:
            self._left[name] -= len(data)

    def _write(self, data: memoryview, place: int) -> None:
        while len(data):
            count = os.pwrite(self._file.fileno(), data, place)
            data, place = data[count:], place + count

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        wrong = next((name for name, left in self._left.items() if left), None)
        if kind is None and wrong is not None:
            raise AssertionError(f"{self._path}: {self._left[wrong]} bytes of {wrong} were announced and not written")


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
