"""Where shards' sums wait until all are there, and how they are added."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from boom_ray.merging.product.writer import Entry, SafetensorsWriter
from boom_ray.model.folder import SINGLE
from boom_ray.store import Draft, Store

PIECE = 1 << 22
"""Elements that are added at a time, in float64."""


@dataclass(frozen=True)
class Staging:
    """A folder that every machine of the cluster sees.

    Attributes:
        store: the store it belongs to.
        path: the folder, as the store's file system names it.
    """

    store: Store
    path: str

    def put(self, shard: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a shard's sums whole or not at all; a second attempt replaces the first."""
        kept = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        if self.store.is_local:
            draft = f"{self._file(shard)}.{uuid.uuid4().hex}"
            save_file(kept, draft)
            Path(draft).replace(self._file(shard))
            return
        with tempfile.TemporaryDirectory(prefix="boom-shard-") as folder:
            save_file(kept, f"{folder}/{SINGLE}")
            self.store.fs.put_file(f"{folder}/{SINGLE}", self._file(shard))

    def add(self, shards: int, divisor: int, target: Path) -> int:
        """Add the sums of all shards in their order, in float64, divide them, and write float32.

        Args:
            shards: how many there are; a tensor that a shard lacks counts as zero there.
            divisor: what sums are divided by.
            target: folder for ``<module>/model.safetensors``, laid out as the member's.

        Returns:
            The number of tensors.
        """
        with contextlib.ExitStack() as stack:
            paths = stack.enter_context(self._fetched(shards))
            files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
            shapes = {key: tuple(file.get_slice(key).get_shape()) for file in files for key in file.keys()}  # noqa: SIM118
            for module in sorted({key.rpartition("/")[0] for key in shapes}):
                keys = sorted(key for key in shapes if key.rpartition("/")[0] == module)
                entries = [Entry(key.rpartition("/")[2], torch.float32, shapes[key]) for key in keys]
                (target / module).mkdir(parents=True, exist_ok=True)
                with SafetensorsWriter(target / module / SINGLE, entries) as writer:
                    for key, entry in zip(keys, entries, strict=True):
                        for start, values in _sums(files, key, entry.shape):
                            writer.put(entry.name, start, values.div_(divisor).to(torch.float32))
        return len(shapes)

    def _file(self, shard: int) -> str:
        return f"{self.path}/{shard:03}.safetensors"

    @contextlib.contextmanager
    def _fetched(self, shards: int) -> Iterator[list[Path]]:
        """The shards' files on this machine, in order."""
        if self.store.is_local:
            yield [Path(self._file(shard)) for shard in range(shards)]
            return
        folder = Path(tempfile.mkdtemp(prefix="boom-shards-"))
        try:
            for shard in range(shards):
                self.store.fs.get_file(self._file(shard), str(folder / f"{shard:03}"))
            yield sorted(folder.iterdir())
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def open_staging(store: Store, draft: Draft) -> Iterator[Staging]:
    """A new folder, removed at the end: inside the draft, or beside the artifacts of a remote store."""
    path = str(draft.path / "shards")
    if not store.is_local:
        path = f"{fsspec.url_to_fs(store.root)[1]}/staging/{uuid.uuid4().hex}"
    store.fs.makedirs(path, exist_ok=True)
    try:
        yield Staging(store, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            store.fs.rm(path, recursive=True)


def _sums(files: Sequence[Any], key: str, shape: tuple[int, ...]) -> Iterator[tuple[int, torch.Tensor]]:
    """Pieces (first element, flat float64 sum over the files) of one tensor."""
    held = [file for file in files if key in file.keys()]  # noqa: SIM118
    if not shape:
        yield 0, sum(file.get_tensor(key).double() for file in held).reshape(1)
        return
    columns = max(1, torch.Size(shape[1:]).numel())
    step = max(1, PIECE // columns)
    for first in range(0, shape[0], step):
        total = torch.zeros(min(step, shape[0] - first) * torch.Size(shape[1:]).numel(), dtype=torch.float64)
        for file in held:
            total += file.get_slice(key)[first : first + step].reshape(-1)
        yield first * columns, total
