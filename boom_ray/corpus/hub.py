"""Hugging Face datasets, by hub name or as a folder of ``save_to_disk``; always map-style, never with remote code.

Ray Data's own `from_huggingface` asks the hub for files by the builder's name when it is given an iterable dataset
(RAY.md section 3), so rows are read here, by ranges of a map-style dataset.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boom_ray.errors import DataError
from boom_ray.hashing import digest as json_digest
from boom_ray.hashing import file_digest

SAVED = ("dataset_dict.json", "state.json")
ROWS_AT_ONCE = 1000
GUESSED_ROW_BYTES = 1000  # of a dataset that does not tell its size


def is_local(source: str) -> bool:
    """Whether a source is a path on this machine rather than a hub name."""
    return Path(source).exists() or "://" in source or source.startswith(("/", "./", "~"))


def is_saved(fs: Any, path: str) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any(fs.exists(f"{path}/{name}") for name in SAVED)


def of_split(files: list[str], root: str, subset: str | None, split: str) -> list[str]:
    """The data files of one split in a dataset folder, as the hub lays them out (``train-00000-of-00002.parquet``).

    All files if none of them is named after the split.
    """
    if subset:
        files = [name for name in files if subset in name.removeprefix(root).split("/")[:-1]] or files
    named = [name for name in files if _names_split(name.removeprefix(root).strip("/"), split)]
    return named or files


def _names_split(relative: str, split: str) -> bool:
    pieces = relative.split("/")
    stem = pieces[-1].split(".")[0]
    return split in pieces[:-1] or stem == split or stem.startswith((f"{split}-", f"{split}_"))


@functools.lru_cache(maxsize=8)
def load(path: str, subset: str, split: str) -> Any:
    """The map-style dataset; memory-mapped, once per process.

    Raises:
        DataError: it does not exist, has no such subset or split, or cannot be downloaded.
    """
    import datasets

    try:
        if is_local(path):
            return _saved(Path(path), split)
        return datasets.load_dataset(path, subset or None, split=split)
    except DataError:
        raise
    except Exception as error:  # the library raises a dozen kinds; all mean that this source cannot be had
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        offline = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") not in (None, "", "0") else "the network"
        raise DataError(
            f"The Hugging Face dataset {path} (subset {subset or 'default'}, split {split}) cannot be loaded: "
            f"{first_line} Check its name and {offline}, download it beforehand on every node, or give a local folder."
        ) from error


def _saved(folder: Path, split: str) -> Any:
    import datasets

    if (folder / "dataset_dict.json").exists():
        inner = folder / split
        if not inner.is_dir():
            known = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
            raise DataError(f"The Hugging Face dataset {folder} has no split {split}; it has {known}.")
        folder = inner
    return datasets.load_from_disk(str(folder))


def digest(path: str, subset: str, split: str) -> str:
    """Content digest: of the Arrow files of a local folder, of the library's own fingerprint for a hub dataset."""
    if not is_local(path):
        return str(load(path, subset, split)._fingerprint)
    folder = Path(path)
    folder = folder / split if (folder / "dataset_dict.json").exists() else folder
    load(path, subset, split)
    return json_digest(sorted(file_digest(name) for name in folder.glob("*.arrow")))


def text_bytes(path: str, subset: str, split: str) -> int:
    """Size of the dataset; bytes, roughly."""
    found = load(path, subset, split)
    return int(found.data.nbytes) if hasattr(found.data, "nbytes") else len(found) * GUESSED_ROW_BYTES


def read(path: str, subset: str, split: str, start: int, end: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows ``start`` to ``end`` with their numbers, from 1; class labels as their names."""
    found = load(path, subset, split)
    names = {key: value.names for key, value in found.features.items() if type(value).__name__ == "ClassLabel"}
    for first in range(start, end, ROWS_AT_ONCE):
        rows = found.with_format("arrow")[first : min(end, first + ROWS_AT_ONCE)].to_pylist()
        for number, row in enumerate(rows, first + 1):
            yield number, _named(row, names) if names else row


def _named(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """The row with ``COLUMN_text`` added for every class label, unless it is there."""
    extra = {
        f"{key}_text": values[row[key]]
        for key, values in names.items()
        if f"{key}_text" not in row and row[key] is not None and 0 <= row[key] < len(values)
    }
    return row | extra
