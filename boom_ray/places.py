"""Places of artifacts on file systems of any kind (fsspec): checking, filling and clearing them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boom_ray.disk import MANIFEST


def try_writing(fs: Any, root: str) -> None:
    """Write and remove a small file.

    Raises:
        Exception: of the driver, when the root cannot be created or written.
    """
    probe = f"{root}/.probe-{uuid.uuid4().hex}"
    try:
        fs.makedirs(root, exist_ok=True)
        with fs.open(probe, "wb") as stream:
            stream.write(b"0" * 65536)
        fs.rm_file(probe)
    except Exception:
        with contextlib.suppress(Exception):
            fs.rm_file(probe)
        raise


def put(fs: Any, path: Path, place: str, name: str) -> None:
    """Copy a local file into a place."""
    target = f"{place}/{name}"
    fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
    fs.put_file(str(path), target)


def first_fault(fs: Any, place: str, files: Mapping[str, int]) -> str | None:
    """How the first file that is missing or has another size than listed is wrong; None when there is none."""
    for name, size in files.items():
        try:
            found = fs.size(f"{place}/{name}")
        except FileNotFoundError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def set_aside(fs: Any, place: str) -> None:
    """Move a damaged artifact out of the way; kept, not deleted, for whoever wants to look at it."""
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        fs.mv(place, f"{place}.damaged-{uuid.uuid4().hex[:8]}", recursive=True)


def take_back(fs: Any, place: str, names: Iterable[str]) -> None:
    """Remove what a failed build has put into a place, and the place if it is empty then; as far as that works.

    A finished artifact of another writer stays. Another writer that is still uploading the same artifact finds files
    missing when it commits: an error, never a damaged artifact that is read.
    """
    with contextlib.suppress(Exception):  # drivers raise classes of their own; the build's error is the one to hear of
        fs.invalidate_cache()  # other machines have written
        if fs.exists(f"{place}/{MANIFEST}"):
            return
        for name in names:
            with contextlib.suppress(Exception):
                fs.rm_file(f"{place}/{name}")
        if not fs.find(place):
            fs.rm(place, recursive=True)
