"""One job at a time trains a member: a file that its trainer keeps fresh, which other jobs wait for.

Two jobs (or two trials of a sweep) that want the same member would otherwise share its checkpoint folder and train it
twice. A lease is taken over when its owner, a process of this machine, has ended, or when it was not refreshed for a
while that the waiting job has seen itself, for clocks of machines differ.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from boom_ray.disk import is_owner_gone, owned_name
from boom_ray.store import Store

FRESH_S = 60.0  # a lease refreshed within this time is alive
REFRESH_S = 10.0
OLD_S = 3600.0  # one of this age by its own clock is left behind whatever the clocks
SETTLE_S = 1.0  # on stores that cannot create a file for one writer only: how long to look whether another came first


@contextlib.contextmanager
def lease(store: Store, key: str, wait: Callable[[], bool], fresh_s: float = FRESH_S) -> Iterator[bool]:
    """Hold the right to train a member.

    Args:
        store: where members are trained.
        key: of the member.
        wait: called about once a second while another job holds it; True ends the waiting, e.g. because the member is
            there now.
        fresh_s: age from which a lease counts as left behind; seconds.

    Yields:
        True when it is held, False when ``wait`` ended the waiting.
    """
    place = f"{store.folder('training')}/{key}.lease"
    owner = owned_name()
    seen, since = b"", time.monotonic()
    while not (found := _take(store, place, owner, seen, time.monotonic() - since > fresh_s))[0]:
        if found[1] != seen:
            seen, since = found[1], time.monotonic()
        if wait():
            yield False
            return
        time.sleep(min(1.0, fresh_s / 4))
    stop = threading.Event()
    keeper = threading.Thread(target=_refresh, args=(store, place, owner, stop), name="lease", daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        stop.set()
        keeper.join(timeout=30)
        with contextlib.suppress(OSError):
            if _owner(store, place) == owner:
                store.fs.rm_file(place)


def _take(store: Store, place: str, owner: str, seen: bytes, is_stale: bool) -> tuple[bool, bytes]:
    """Whether the lease is ours now, and what it says if it is another's that may be alive.

    Args:
        store: where it is.
        place: the file.
        owner: us.
        seen: what the file said when it last changed.
        is_stale: it has said so for too long.
    """
    with contextlib.suppress(FileNotFoundError):
        text: bytes = store.fs.cat_file(place)
        if _may_be_alive(text) and not (is_stale and text == seen):
            return False, text
    _write(store, place, owner)
    time.sleep(0.05 if store.is_local else SETTLE_S)
    return _owner(store, place) == owner, b""  # of two that came at once, the last one has it


def _may_be_alive(text: bytes) -> bool:
    try:
        found = json.loads(text)
        return not is_owner_gone(found["owner"]) and time.time() - float(found["time"]) < OLD_S
    except (ValueError, KeyError, TypeError):
        return False  # half written by a job that was killed


def _owner(store: Store, place: str) -> str:
    try:
        return str(json.loads(store.fs.cat_file(place))["owner"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def _write(store: Store, place: str, owner: str) -> None:
    store.fs.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    store.fs.pipe_file(place, json.dumps({"owner": owner, "time": time.time()}).encode())


def _refresh(store: Store, place: str, owner: str, stop: threading.Event) -> None:
    while not stop.wait(REFRESH_S):
        with contextlib.suppress(OSError):
            _write(store, place, owner)
