"""Weights of a model folder, read lazily from safetensors, any range of any tensor, into the caller's buffers.

Nothing is mapped or cached, so the memory of a merge is the memory of its buffers, and a file that ends too early is an
error that names it instead of a bus error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open

from boom_ray.errors import MergeError
from boom_ray.model.folder import INDEX, SINGLE, check_folder, modules, read_json, transformer_dir

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
        tensors: key to place of every tensor, sorted by key.
    """

    label: str
    folder: Path
    transformer: str
    tensors: dict[str, TensorInfo]
    _files: dict[Path, int] = field(default_factory=dict)

    def read(self, info: TensorInfo, start: int, stop: int, buffer: torch.Tensor) -> torch.Tensor:
        """Read elements ``start`` to ``stop`` of a tensor, flat.

        Args:
            info: one of ``tensors``.
            start: first element.
            stop: one past the last element.
            buffer: uint8, at least as many bytes as are read; overwritten.

        Returns:
            (stop - start,) in the file's type, a view of ``buffer``.

        Raises:
            MergeError: the file cannot be read or ends too early.
        """
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
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY)
        return self._files[path]

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(folder: Path, label: str) -> Checkpoint:
    """List the tensors of all modules of a sentence-transformers or transformers folder; no data is read.

    Raises:
        ModelError: no such folder, no config, tokenizer or weights, or weights only in a pickle format.
        MergeError: a file is damaged, or is of a kind that cannot be merged.
    """
    check_folder(folder)
    infos: dict[str, TensorInfo] = {}
    for place in sorted({module.path for module in modules(folder)}):
        for path in module_files(place, label):
            for info in _read_header(path, _relative(place, folder), label):
                if info.key in infos:
                    raise MergeError(f"{label}: tensor {info.key} is in both {infos[info.key].path} and {path}.")
                infos[info.key] = info
    inner = _relative(transformer_dir(folder), folder)
    return Checkpoint(label, folder, inner, dict(sorted(infos.items())))


def _relative(place: Path, folder: Path) -> str:
    text = place.relative_to(folder).as_posix()
    return "" if text == "." else text


def module_files(place: Path, label: str) -> list[Path]:
    """The safetensors files that hold one module's weights, single or sharded; none for modules without weights.

    Raises:
        MergeError: a missing shard, weights only in a pickle format, or an adapter that is not folded in.
    """
    if (place / INDEX).exists():
        paths = [place / name for name in sorted(set(read_json(place / INDEX)["weight_map"].values()))]
        for path in paths:
            if not path.exists():
                raise MergeError(f"{label}: {place / INDEX} lists {path.name}, which is missing. Copy the model again.")
        return paths
    if (place / SINGLE).exists():
        return [place / SINGLE]
    if (place / "adapter_model.safetensors").exists():
        raise MergeError(f"{label}: {place} holds an adapter; fold it into the base model (merge_and_unload) first.")
    pickled = sorted(path.name for path in place.glob("*.bin")) if place.is_dir() else []
    if pickled:
        raise MergeError(
            f"{label}: {place} has its weights only as {pickled[0]}, a pickle file that could run code when opened. "
            f"Convert the model to safetensors on a machine you trust, with SentenceTransformer.save(folder)."
        )
    return []


def _read_header(path: Path, module: str, label: str) -> Iterator[TensorInfo]:
    """Places of a file's tensors; the library checks that they fill the file without gaps before we use them."""
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
