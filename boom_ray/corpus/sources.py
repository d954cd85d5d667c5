"""Where a dataset's rows are: its files, a digest of their content, and fragments that one task can read.

A fragment is a range of a file: bytes of JSONL (cut at line ends by the reader), row groups of Parquet, rows of a
Hugging Face dataset, a share of the queries of a BEIR folder, or a whole CSV or compressed file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from fsspec.implementations.local import LocalFileSystem

from boom_ray.config import DatasetConfig
from boom_ray.corpus import hub
from boom_ray.errors import DataError
from boom_ray.hashing import file_digest

Kind = Literal["jsonl", "csv", "parquet", "huggingface", "beir"]

SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
BEIR_FILES = ("corpus.jsonl", "queries.jsonl")
GZIP_RATIO = 4  # text to compressed bytes, to choose the number of parts; it need not be exact
BEIR_QRELS_PER_FRAGMENT = 8 << 20  # bytes; every fragment reads the whole passage file once


@dataclass(frozen=True)
class SourceFile:
    """One file, Hugging Face dataset or BEIR folder.

    Attributes:
        path: local path, fsspec URL or hub name.
        kind: which reader reads it.
        size: bytes of text in it, roughly; 0 when unknown.
        extra: what the reader needs besides the path (subset and split, qrels file).
    """

    path: str
    kind: Kind
    size: int
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fragment:
    """A piece of a source that one task reads.

    Attributes:
        dataset: index of the dataset among those being read.
        path, kind, extra: as in `SourceFile`.
        start: first byte, row group or row; the share's number of a BEIR folder.
        end: one past the last, None for the rest of the file; the number of shares of a BEIR folder.
    """

    dataset: int
    path: str
    kind: Kind
    extra: tuple[str, ...]
    start: int
    end: int | None


def locate(dataset: DatasetConfig) -> list[SourceFile]:
    """All files of a dataset's source, sorted by path.

    Raises:
        DataError: there is none, or its form is not known.
    """
    if dataset.format == "huggingface" and not hub.is_local(dataset.source):
        return [_hub_file(dataset, dataset.source)]
    fs, path = fsspec.url_to_fs(dataset.source)
    if not fs.isdir(path):
        found = [path] if fs.exists(path) else sorted(fs.glob(path)) if _is_glob(path) else []
        if not found:
            raise DataError(_no_such_file(dataset))
        return [_file(fs, name, dataset) for name in found]
    if dataset.format in {"auto", "huggingface"} and hub.is_saved(fs, path):
        return [_hub_file(dataset, path)]
    if dataset.format == "beir" or (dataset.format == "auto" and fs.exists(f"{path}/{BEIR_FILES[0]}")):
        return [_beir_folder(fs, path, dataset)]
    files = [name for name in sorted(fs.find(path)) if _kind(name, dataset) is not None and not _hidden(name, path)]
    if dataset.format == "huggingface":
        files = hub.of_split(files, path, dataset.subset, dataset.split)
    if not files:
        raise DataError(
            f"Dataset {dataset.name}: the folder {dataset.source} has no file to read; known are {', '.join(SUFFIXES)} "
            f"(also with .gz), BEIR folders with {BEIR_FILES[0]}, and folders of datasets' save_to_disk."
        )
    return [_file(fs, name, dataset) for name in files]


def source_digest(files: list[SourceFile]) -> list[str]:
    """Content digests of all files, sorted, so that neither names nor places nor their order count.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor(4) as pool:
        return sorted(pool.map(_digest, files))


def fragments(files: list[SourceFile], index: int, fragment_bytes: int) -> list[Fragment]:
    """Cut files into pieces of about ``fragment_bytes``.

    Args:
        files: from `locate`.
        index: number of the dataset, put into each fragment.
        fragment_bytes: size wanted; bytes of text.

    Raises:
        DataError: a Parquet file or Hugging Face dataset cannot be opened.
    """
    return [
        Fragment(index, file.path, file.kind, file.extra, start, end)
        for file in files
        for start, end in _ranges(file, fragment_bytes)
    ]


def open_fs(path: str) -> tuple[Any, str]:
    """File system of a path or URL, and the path in it."""
    fs, inner = fsspec.url_to_fs(path)
    return fs, inner


def unreadable(path: str, error: Exception) -> DataError:
    """The error of a file that is there but cannot be read."""
    return DataError(
        f"{path} cannot be read: {error}. Check that the file is complete and that every node of the cluster may read "
        f"it."
    )


def _ranges(file: SourceFile, fragment_bytes: int) -> Iterator[tuple[int, int | None]]:
    if file.kind == "jsonl" and file.size and not file.path.endswith(".gz"):
        yield from _cuts(file.size, fragment_bytes)
    elif file.kind == "parquet":
        yield from _row_groups(file.path, fragment_bytes)
    elif file.kind == "huggingface":
        rows = len(hub.load(file.path, *file.extra))
        per_row = max(1, file.size // max(1, rows))
        yield from _cuts(rows, max(1000, fragment_bytes // per_row))
    elif file.kind == "beir":
        fs, path = open_fs(file.path)
        count = math.ceil(max(1, fs.size(f"{path}/{file.extra[0]}")) / BEIR_QRELS_PER_FRAGMENT)
        yield from ((share, count) for share in range(count))
    else:
        yield 0, None


def _cuts(total: int, step: int) -> Iterator[tuple[int, int]]:
    """Even ranges of at most ``step`` that cover ``total``."""
    count = max(1, math.ceil(total / step))
    edges = [total * number // count for number in range(count + 1)]
    return itertools.pairwise(edges)


def _row_groups(path: str, fragment_bytes: int) -> Iterator[tuple[int, int]]:
    meta = _parquet_meta(path)
    start, size = 0, 0
    for group in range(meta.num_row_groups):
        size += meta.row_group(group).total_byte_size
        if size >= fragment_bytes or group == meta.num_row_groups - 1:
            yield start, group + 1
            start, size = group + 1, 0


def _parquet_meta(path: str) -> Any:
    fs, inner = open_fs(path)
    try:
        with fs.open(inner, "rb") as stream:
            return pq.ParquetFile(stream).metadata
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def _digest(file: SourceFile) -> str:
    if file.kind == "huggingface":
        return hub.digest(file.path, *file.extra)
    fs, path = open_fs(file.path)
    names = [f"{path}/{name}" for name in (*BEIR_FILES, file.extra[0])] if file.kind == "beir" else [path]
    return "+".join(_file_digest(fs, name) for name in names)


def _file_digest(fs: Any, path: str) -> str:
    try:
        if isinstance(fs, LocalFileSystem):
            return file_digest(path)
        info = fs.info(path)
        if "ETag" in info:  # an object store's own content tag: nothing needs to be downloaded twice
            return f"{info['ETag']}:{info['size']}"
        state = xxhash.xxh3_128()
        with fs.open(path, "rb") as stream:
            while piece := stream.read(4 << 20):
                state.update(piece)
        return str(state.hexdigest())
    except OSError as error:
        raise unreadable(path, error) from error


def _file(fs: Any, path: str, dataset: DatasetConfig) -> SourceFile:
    kind = _kind(path, dataset)
    if kind is None:
        raise DataError(
            f"Dataset {dataset.name}: the form of {path} is not known by its name; known are {', '.join(SUFFIXES)} "
            f"(also with .gz). Set format to jsonl, parquet or csv."
        )
    full = path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))
    if kind == "parquet":
        meta = _parquet_meta(full)
        sizes = [meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)]
        return SourceFile(full, kind, sum(sizes))
    size = int(fs.info(path).get("size") or 0)
    return SourceFile(full, kind, size * GZIP_RATIO if path.endswith(".gz") else size)


def _kind(path: str, dataset: DatasetConfig) -> Kind | None:
    if dataset.format in {"jsonl", "parquet", "csv"}:
        return dataset.format  # type: ignore[return-value]  # mypy does not narrow a Literal by membership
    name = path.removesuffix(".gz")
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def _hidden(path: str, root: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in path.removeprefix(root).split("/") if piece)


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _hub_file(dataset: DatasetConfig, path: str) -> SourceFile:
    extra = (dataset.subset or "", dataset.split)
    return SourceFile(path, "huggingface", hub.text_bytes(path, *extra), extra)


def _beir_folder(fs: Any, path: str, dataset: DatasetConfig) -> SourceFile:
    qrels = f"qrels/{dataset.split}.tsv"
    for name in (*BEIR_FILES, qrels):
        if not fs.exists(f"{path}/{name}"):
            raise DataError(
                f"Dataset {dataset.name}: the BEIR folder {dataset.source} has no {name}; it needs {BEIR_FILES[0]}, "
                f"{BEIR_FILES[1]} and qrels/SPLIT.tsv (split is {dataset.split})."
            )
    full = path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))
    return SourceFile(full, "beir", sum(int(fs.size(f"{path}/{name}")) for name in BEIR_FILES), (qrels,))


def _no_such_file(dataset: DatasetConfig) -> str:
    hint = " For a dataset of the Hugging Face hub set format=huggingface." if dataset.format == "auto" else ""
    return f"Dataset {dataset.name}: no such file: {dataset.source}.{hint}"
