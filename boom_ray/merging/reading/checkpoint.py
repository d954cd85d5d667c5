"""Weights of a model folder, read lazily from safetensors, any range of any tensor, into the caller's buffers.

Nothing is mapped or cached, so the memory of a merge is the memory of its buffers, and a file that ends too early is an
error that names it instead of a bus error. Several threads may read from one checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open

from boom_ray.errors import MergeError
from boom_ray.merging.reading.tied import find_aliases
from boom_ray.model.folder import (
    ADAPTER,
    INDEX,
    SINGLE,
    check_folder,
    is_adapter,
    modules,
    refuse_pickles,
    shard_map,
    transformer_dir,
)

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor is.

    Attributes:
        module: folder of its file, relative to the model folder; empty for the root.
        name: name in the file.
        dtype: type in the file.
        shape: shape.
        path: file.
        offset: first byte of its data in the file.
    """

    module: str
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def key(self) -> str:
        """Unique name within the model: folder and tensor name."""
        return f"{self.module}/{self.name}" if self.module else self.name

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of its data; bytes."""
        return self.numel * int(self.dtype.itemsize)


@dataclass
class Checkpoint:
    """The tensors of one model folder; use as a context manager so that its files are closed.

    Attributes:
        label: name of the member, for errors.
        folder: the model folder.
        transformer: folder of the transformer module, relative to ``folder``.
        tensors: key to place of every tensor, sorted by key; a tensor that repeats another one is not among them.
        aliases: such repetitions, each with the tensor whose values it should have, see
            `boom_ray.merging.reading.tied`.
        is_adapter: whether the weights are a base's and an adapter's, see `boom_ray.merging.reading.adapters`.
    """

    is_adapter: ClassVar[bool] = False

    label: str
    folder: Path
    transformer: str
    tensors: dict[str, TensorInfo]
    aliases: list[tuple[TensorInfo, TensorInfo]] = field(default_factory=list)
    _files: dict[Path, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def layers(self) -> tuple[Path, ...]:
        """Folders with the files beside the weights; where several have a file, the first one's counts."""
        return (self.folder,)

    @property
    def package_folder(self) -> Path:
        """The folder whose ``modules.json`` counts; of plain transformers folders the last one."""
        return next((layer for layer in self.layers if (layer / "modules.json").exists()), self.layers[-1])

    def find(self, name: str) -> Path | None:
        """A file beside the weights by its relative name; None when there is none."""
        return next((layer / name for layer in self.layers if (layer / name).exists()), None)

    def weight_paths(self) -> set[Path]:
        """The files that hold the weights."""
        return {info.path for info in self.tensors.values()}

    @property
    def resident_bytes(self) -> int:
        """Most bytes that stay in memory between reads."""
        return 0

    def read_type(self, info: TensorInfo) -> torch.dtype:
        """Type of what `read` returns of a tensor: the file's or a wider one."""
        return info.dtype

    def read(self, info: TensorInfo, start: int, stop: int, buffer: torch.Tensor) -> torch.Tensor:
        """Read elements ``start`` to ``stop`` of a tensor, flat; several threads may, each with a buffer of its own.

        Args:
            info: one of ``tensors``.
            start: first element.
            stop: one past the last element.
            buffer: uint8, at least as many bytes as the elements have in ``info.dtype``; scratch, overwritten.

        Returns:
            (stop - start,) in `read_type`, the file's type or a wider one; may be a view of ``buffer``.

        Raises:
            MergeError: the file cannot be read or ends too early.
        """
        return self.read_stored(info, start, stop, buffer)

    def read_stored(self, info: TensorInfo, start: int, stop: int, buffer: torch.Tensor) -> torch.Tensor:
        """As `read`, but exactly what is in the file: a view of ``buffer`` in the file's type."""
        size = int(info.dtype.itemsize)
        wanted = buffer[: (stop - start) * size]
        view, offset = memoryview(wanted.numpy()), info.offset + start * size
        try:
            descriptor = self._descriptor(info.path)
            while len(view):
                count = os.preadv(descriptor, [view], offset)
                if count == 0:
                    raise OSError("the file ends too early")
                view, offset = view[count:], offset + count
        except OSError as error:
            raise MergeError(f"{info.path} of {self.label} cannot be read in tensor {info.name}: {error}.") from error
        return wanted.view(info.dtype)

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            return self._files[path]

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(folder: Path, label: str, base: Checkpoint | None = None) -> Checkpoint:
    """List the tensors of all modules of a model folder, or of an adapter over a base; no weights are read.

    Args:
        folder: a sentence-transformers or transformers folder, or one that peft saved an adapter in.
        label: name of the member, for errors.
        base: the model that adapters belong to; not read otherwise.

    Raises:
        ModelError: no such folder, no config, tokenizer or weights, or weights only in a pickle format.
        MergeError: a file is damaged, or is of a kind that cannot be merged; an adapter without base.
    """
    if is_adapter(folder):
        from boom_ray.merging.reading.adapters import open_adapter  # builds on this module

        return open_adapter(folder, label, base)
    check_folder(folder)
    tensors = list_tensors(folder, sorted({module.path for module in modules(folder)}), label)
    inner = transformer_dir(folder)
    repeated = find_aliases({info.name: info for info in tensors.values() if info.path.parent == inner}, inner)
    aliases = [(tensors.pop(alias.key), source) for alias, source in repeated]
    return Checkpoint(label, folder, _relative(inner, folder), tensors, aliases)


def open_weights(folder: Path, label: str) -> Checkpoint:
    """List the tensors of a folder that is laid out like a model's and is none, e.g. statistics of a model's tensors.

    Files are named as a model's (``model.safetensors``, or shards with an index), in any folders; keys are the relative
    folder and the name.

    Raises:
        MergeError: no weights, or a damaged file.
    """
    places = sorted({path.parent for pattern in (SINGLE, INDEX) for path in folder.rglob(pattern)})
    if not places:
        raise MergeError(f"{label}: there are no safetensors files in {folder}.")
    return Checkpoint(label, folder, "", list_tensors(folder, places, label))


def list_tensors(folder: Path, places: Sequence[Path], label: str) -> dict[str, TensorInfo]:
    """Key to place of every tensor in the weight files of some folders below ``folder``, sorted by key.

    Raises:
        MergeError: a damaged or missing file, an index that does not fit its files, or a tensor in two files.
    """
    infos: dict[str, TensorInfo] = {}
    for place in places:
        module = _relative(place, folder)
        for path in module_files(place, label):
            for info in read_header(path, module, label):
                if info.key in infos:
                    raise MergeError(f"{label}: tensor {info.key} is in both {infos[info.key].path} and {path}.")
                infos[info.key] = info
        if (place / INDEX).exists():
            _check_index(place, {info.name: info for info in infos.values() if info.module == module}, label)
    return dict(sorted(infos.items()))


def _check_index(place: Path, found: Mapping[str, TensorInfo], label: str) -> None:
    for name, file in sorted(shard_map(place).items()):
        if name not in found or found[name].path != place / file:
            raise MergeError(
                f"{label}: {place / INDEX} says that tensor {name} is in {file}, and it is not. Copy the model again."
            )


def _relative(place: Path, folder: Path) -> str:
    text = place.relative_to(folder).as_posix()
    return "" if text == "." else text


def module_files(place: Path, label: str) -> list[Path]:
    """The safetensors files that hold one module's weights, single or sharded; none for modules without weights.

    Raises:
        ModelError: weights only in a pickle format.
        MergeError: a missing shard, or an adapter in a module that is no transformer.
    """
    if (place / INDEX).exists():
        paths = [place / name for name in sorted(set(shard_map(place).values()))]
        for path in paths:
            if not path.exists():
                raise MergeError(f"{label}: {place / INDEX} lists {path.name}, which is missing. Copy the model again.")
        return paths
    if (place / SINGLE).exists():
        return [place / SINGLE]
    if (place / ADAPTER).exists():
        raise MergeError(f"{label}: {place} holds an adapter; fold it into the base model (merge_and_unload) first.")
    refuse_pickles(place)
    return []


def read_header(path: Path, module: str, label: str) -> Iterator[TensorInfo]:
    """Places of a file's tensors; the library checks that they fill the file without gaps before we use them.

    Raises:
        MergeError: the file is truncated or damaged, or a tensor has a type that cannot be merged.
    """
    try:
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise MergeError(
            f"{path} of {label} is not a complete safetensors file: {error}. Copy or train this model again."
        ) from error
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items()):
        if entry["dtype"] not in DTYPES:
            raise MergeError(
                f"{path} of {label}: tensor {name} has type {entry['dtype']}, which cannot be merged. Save the model "
                f"in float32, bfloat16 or float16."
            )
        start = 8 + size + int(entry["data_offsets"][0])
        yield TensorInfo(module, name, DTYPES[entry["dtype"]], tuple(entry["shape"]), path, start)
