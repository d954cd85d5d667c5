"""Folders on this machine's disks: drafts that are renamed into place, and copies of remote artifacts.

A writer that is killed cannot tidy up. Drafts therefore name the process that writes them, and whoever makes a draft
beside them removes those of processes that have ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import logging
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

MANIFEST = "artifact.json"
"""The file that is written last: a directory without it is not finished."""
DRAFT = ".draft-"
"""How the names of drafts begin."""
ABANDONED = 7 * 24 * 3600.0
"""Seconds without a write after which another machine's draft counts as abandoned: its processes cannot be seen."""
OWNED = re.compile(r".*-(?P<machine>[0-9a-f]{12})-(?P<process>\d{1,7})-(?P<started>\d+)-[0-9a-f]{8}")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
log = logging.getLogger(__name__)


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


def file_sizes(folder: Path) -> dict[str, int]:
    """Relative path to size in bytes of all files below a folder, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def is_trouble_below(error: OSError, roots: Sequence[Path]) -> bool:
    """Whether an error is about a disk that is full or read-only, or about no permission below one of the roots."""
    inner = getattr(error, "cause", error)  # errors of Ray tasks hold the original
    code = getattr(inner, "errno", None)
    if code in FULL:
        return True
    names = [name for name in (inner.filename, inner.filename2) if isinstance(name, str | bytes | os.PathLike)]
    paths = [Path(os.fsdecode(name)).absolute() for name in names]
    return code in FORBIDDEN and any(path.is_relative_to(root) for path in paths for root in roots)


def owned_name(prefix: str = "") -> str:
    """A new name that says which process made it: ``<prefix><host>-<machine>-<process>-<started>-<random>``.

    The start (clock ticks after boot) tells a process from a later one with the same number.
    """
    process = os.getpid()
    owner = f"{socket.gethostname()}-{_machine()}-{process}-{_status(process)[1]}"
    return f"{prefix}{owner}-{uuid.uuid4().hex[:8]}"


def is_owner_gone(name: str) -> bool:
    """Whether a name is one of `owned_name` and its process ran on this machine and has ended."""
    owned = OWNED.fullmatch(name)
    return owned is not None and owned["machine"] == _machine() and not _is_running(owned)


def new_draft(parent: Path, prefix: str = DRAFT, label: str = "") -> Path:
    """An empty folder of this process; drafts beside it that were abandoned are removed.

    Abandoned are those of processes of this machine that have ended, and those of other machines (or containers) in
    which nothing was written for a week. A folder that merely has such a prefix is not touched.

    Args:
        parent: where; made when it does not exist.
        prefix: how the names of such drafts begin.
        label: what follows in the name of this one, for people.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    draft = parent / owned_name(f"{prefix}{label}-" if label else prefix)
    draft.mkdir(mode=0o700)
    now = draft.stat().st_mtime  # by the clock of the disk, which may be another machine's
    for other in parent.glob(f"{prefix}*"):
        if is_owner_gone(other.name) or _is_idle(other, now):
            log.info("Removing %s, which its writer has abandoned.", other)
            shutil.rmtree(other, ignore_errors=True)
    return draft


def _is_idle(draft: Path, now: float) -> bool:
    """Whether another machine's draft has not been written for long."""
    owned = OWNED.fullmatch(draft.name)
    if owned is None or owned["machine"] == _machine():
        return False
    with contextlib.suppress(OSError):  # somebody is just renaming or removing it
        return all(now - path.stat().st_mtime > ABANDONED for path in itertools.chain([draft], draft.rglob("*")))
    return False


def _machine() -> str:
    """Hash of what process numbers belong to: the host, its boot and, in containers, the namespace."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux only
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        facts.extend(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "time"))
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=6).hexdigest()


def _is_running(owned: re.Match[str]) -> bool:
    process, started = int(owned["process"]), int(owned["started"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    state, found = _status(process)
    return state not in {"Z", "X"} and (found == started or 0 in {found, started})


def _status(process: int) -> tuple[str, int]:
    """State and start of a process; ("", 0) where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "", 0
    return fields[0].decode(), int(fields[19])


def is_complete(folder: Path, files: Mapping[str, int]) -> bool:
    """Whether a folder has a manifest and all files in their sizes; cleaners of temporary folders remove some."""
    return (folder / MANIFEST).exists() and not _missing(folder, files)


def _missing(folder: Path, files: Mapping[str, int]) -> list[str]:
    paths = {name: folder / name for name in files}
    return [name for name, path in paths.items() if not path.is_file() or path.stat().st_size != files[name]]


def copy_once(target: Path, files: Mapping[str, int], fetch: Callable[[str, str], None]) -> None:
    """Have an artifact's files in a folder of this machine: one process fetches them, the others wait for it.

    Only what is missing is fetched, and each file is moved into place when it is complete, the manifest last, so that
    whoever reads the others is not disturbed.

    Args:
        target: the folder.
        files: relative path to size in bytes, without the manifest.
        fetch: writes the file of this relative path to this local path.

    Raises:
        OSError: fetching or writing failed, or a file came with another size.
    """
    if is_complete(target, files):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if is_complete(target, files):
            return
        target.mkdir(mode=0o700, exist_ok=True)
        draft = new_draft(target.parent)
        try:
            for name in [*_missing(target, files), MANIFEST]:
                _fetch_into(draft, name, files.get(name), fetch)
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).replace(target / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _fetch_into(draft: Path, name: str, size: int | None, fetch: Callable[[str, str], None]) -> None:
    path = draft / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch(name, str(path))
    if size is not None and path.stat().st_size != size:
        raise OSError(f"{name} came with {path.stat().st_size} bytes instead of {size}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One thread of one process at a time; where a disk has no locks, all at once, which costs time only."""
    with path.open("ab") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_UN)  # closing is not enough when a process was forked meanwhile
