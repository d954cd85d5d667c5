"""Moving finished directories into place on this machine's disk, and where it keeps copies of remote artifacts."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path

MANIFEST = "artifact.json"
"""The file that is written last: a directory without it is not finished."""


def cache_dir() -> Path:
    """Where copies of remote artifacts are kept on this machine; every user has their own."""
    default = Path(tempfile.gettempdir()) / f"boom_ray_cache_{os.getuid()}"
    return Path(os.environ.get("BOOM_CACHE_DIR", default))


def rename_into_place(draft: Path, place: Path) -> None:
    """Atomic rename; when another writer of the same key was first, its equal result stays and ours goes."""
    try:
        draft.rename(place)
        return
    except OSError:
        if not place.is_dir():
            raise
    if not (place / MANIFEST).exists():  # what a killed `rm -r` leaves; it would be in the way for ever
        with contextlib.suppress(FileNotFoundError):
            place.rename(place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}"))
        draft.rename(place)
        return
    shutil.rmtree(draft, ignore_errors=True)
