"""One job at a time trains a member: a file that its trainer keeps fresh, which other jobs wait for.

Two jobs (or two trials of a sweep) that want the same member would otherwise share its checkpoint folder and train it
twice. A lease is taken over when its owner, a process of this machine, has ended, or when it was not refreshed for a
while that the waiting job has seen itself, for clocks of machines differ. On a disk with locks, looking and taking are
one step; elsewhere the last of several that write at once has it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from boom_ray.disk import is_owner_gone, locked, owned_name
from boom_ray.store import Store

FRESH_S = 60.0  # a lease refreshed within this time is alive
OLD_S = 3600.0  # one of this age by its own clock is left behind whatever the clocks
SETTLE_S = 1.0  # on stores without locks: how long to look whether another came at the same time
log = logging.getLogger(__name__)


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
    own = _Lease(store, key)
    seen, since = b"", time.monotonic()
    while (found := own.take(seen, time.monotonic() - since > fresh_s)) is not None:
        if found != seen:
            seen, since = found, time.monotonic()
        if wait():
            yield False
            return
        time.sleep(min(1.0, fresh_s / 4))
    stop = threading.Event()
    keeper = threading.Thread(target=own.keep, args=(stop, fresh_s / 6), name="lease", daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        stop.set()
        keeper.join(timeout=30)
        own.release()


class _Lease:
    """The file of one member's lease, and this process's claim to it."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.place = f"{store.folder('training')}/{key}.lease"
        self.owner = owned_name()

    def take(self, seen: bytes, is_stale: bool) -> bytes | None:
        """None if the lease is ours now, else what another's says that may be alive.

        Args:
            seen: what the file said when it last changed.
            is_stale: it has said so for too long.
        """
        self.store.fs.makedirs(self.store.folder("training"), exist_ok=True)
        with self._alone():
            text = self._read()
            if text is not None and _may_be_alive(text) and not (is_stale and text == seen):
                return text
            self._write()
        time.sleep(0.05 if self.store.is_local else SETTLE_S)
        text = self._read()
        return None if _owner(text) == self.owner else text or b""

    def keep(self, stop: threading.Event, every_s: float) -> None:
        """Refresh the file until told to stop, or until another job has taken it over."""
        while not stop.wait(every_s):
            try:
                with self._alone():
                    text = self._read()
                    if text is None or _owner(text) == self.owner:
                        self._write()
                        continue
            except Exception as error:  # whatever a remote store raises; the next turn may do better
                log.info("The lease %s could not be refreshed: %s", self.place, error)
                continue
            log.warning("%s was not refreshed for too long: another job trains this member now, too.", self.place)
            return

    def release(self) -> None:
        """Remove the file if it is ours."""
        try:
            with self._alone():
                if _owner(self._read()) == self.owner:
                    self.store.fs.rm_file(self.place)
        except Exception as error:  # it is left to grow old, and must not hide how training ended
            log.info("The lease %s could not be removed: %s", self.place, error)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else of this store's disk looks at or changes leases meanwhile."""
        if not self.store.is_local:
            return contextlib.nullcontext()
        return locked(Path(self.store.folder("training")) / ".lease.lock")

    def _read(self) -> bytes | None:
        try:
            return bytes(self.store.fs.cat_file(self.place))
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        text = json.dumps({"owner": self.owner, "time": time.time()}).encode()
        if not self.store.is_local:
            self.store.fs.pipe_file(self.place, text)
            return
        draft = Path(f"{self.place}.{self.owner}")  # nobody ever sees half a lease
        draft.write_bytes(text)
        draft.replace(self.place)


def _may_be_alive(text: bytes) -> bool:
    """Whether its owner may still refresh it; of a text that cannot be read only time will tell."""
    try:
        found = json.loads(text)
        return not is_owner_gone(found["owner"]) and time.time() - float(found["time"]) < OLD_S
    except (ValueError, KeyError, TypeError):
        return True


def _owner(text: bytes | None) -> str:
    try:
        return str(json.loads(text or b"")["owner"])
    except (ValueError, KeyError, TypeError):
        return ""
