"""Sends operations to MLflow from one background thread; buffers while the server is away; loses nothing."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import fsspec

from boom_ray.hashing import digest
from boom_ray.tracking.operations import Batch, Create, Handle, Operation

log = logging.getLogger(__name__)
Item = tuple[Handle, Operation]
Refused = tuple[Handle, Operation, str]
ATTEMPTS = 3  # of one operation, while the server answers other requests
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "FEATURE_DISABLED")


class Delivery:
    """A buffer and the thread that empties it.

    Args:
        client: an ``MlflowClient``, used by the thread alone.
        alive: asks the server something cheap; raises when it is away.
        place: the server's name in messages.
        undelivered: directory or URL for what cannot be delivered until `close`.
        interval_s: how long operations gather before a batch is sent.
        longest_wait_s: the longest pause between attempts while the server is away.
    """

    def __init__(
        self,
        client: Any,
        alive: Callable[[], object],
        place: str,
        undelivered: str,
        interval_s: float = 1.0,
        longest_wait_s: float = 30.0,
    ) -> None:
        """Start the thread."""
        self._client, self._alive, self._place, self._undelivered = client, alive, place, undelivered
        self._interval_s, self._longest_wait_s = interval_s, longest_wait_s
        self._pending: list[Item] = []
        self._refused: list[Refused] = []
        self._changed = threading.Condition()
        self._busy = self._closing = self._hurry = False
        self.away = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def put(self, handle: Handle, operation: Operation) -> None:
        """Buffer one operation; returns at once. After `close` nothing is taken and a warning says so."""
        with self._changed:
            if self._closing:
                log.warning("MLflow tracking is closed; %s of run %s is not logged.", operation.record(), handle.name)
                return
            self._pending.append((handle, operation))
            self._changed.notify_all()

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Send what is buffered now; False when the server is away or the time is over."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle() or self.away, timeout_s)
            return self._idle()

    def close(self) -> list[str]:
        """Send everything, a last time; what cannot be sent is written to files, whose places are returned."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        left = [*self._refused, *((handle, operation, "no answer") for handle, operation in self._pending)]
        self._pending, self._refused = [], []
        return write_undelivered(left, self._undelivered)

    def _idle(self) -> bool:
        return not self._pending and not self._busy

    def _work(self) -> None:
        wait_s = self._interval_s
        while items := self._take(wait_s):
            left, away = self._send(gathered(items))
            with self._changed:
                self._pending[:0] = left
                self._busy, self.away = False, away
                self._changed.notify_all()
                if away and self._closing:
                    return
            wait_s = min(2 * wait_s, self._longest_wait_s) if left else self._interval_s

    def _take(self, wait_s: float) -> list[Item]:
        """Wait for something to send, then let more gather; empty only at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(lambda: self._closing or self._hurry, wait_s)
            self._hurry = False
            items, self._pending = self._pending, []
            self._busy = bool(items)
            return items

    def _send(self, items: list[Item]) -> tuple[list[Item], bool]:
        """Send in order; returns what has to be sent again, and whether the server is away."""
        later: list[Item] = []
        held: set[Handle] = set()  # after a failure the rest of that run waits too, so that its order stays
        for index, (handle, operation) in enumerate(items):
            if handle in held:
                later.append((handle, operation))
                continue
            try:
                self._send_one(handle, operation)
                self._is_back()
            except Exception as error:
                if self._is_away(error):
                    return [*later, *items[index:]], True
                operation.attempts += 1
                if operation.attempts >= ATTEMPTS:
                    self._refuse(handle, operation, error)
                else:
                    held.add(handle)
                    later.append((handle, operation))
        return later, False

    def _send_one(self, handle: Handle, operation: Operation) -> None:
        """Apply one operation; what MLflow refuses for its content is set aside value by value, the rest goes through.

        Raises:
            Exception: whatever may go better another time.
        """
        if handle.id is None and not isinstance(operation, Create):
            self._refuse(handle, operation, RuntimeError("the run could not be created"))
            return
        try:
            operation.apply(self._client, handle)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSALS:
                raise
            parts = list(operation.parts())
            if len(parts) < 2:
                self._refuse(handle, operation, error)
                return
            for part in parts:
                self._send_one(handle, part)

    def _refuse(self, handle: Handle, operation: Operation, error: Exception) -> None:
        first = not any(one is handle for one, _, _ in self._refused)
        level = logging.WARNING if first else logging.DEBUG
        log.log(level, "MLflow did not take something of run %s, which goes on without it: %s", handle.name, error)
        self._refused.append((handle, operation, f"{type(error).__name__}: {error}"))

    def _is_away(self, error: Exception) -> bool:
        """Whether the server answers nothing at all; says so the first time."""
        try:
            self._alive()
            return False
        except Exception:
            if not self.away:
                self.away = True
                log.warning(
                    "MLflow at %s does not answer (%s). The job goes on; results are kept and sent when it is back.",
                    self._place,
                    error,
                )
            return True

    def _is_back(self) -> None:
        if self.away:
            self.away = False
            log.warning("MLflow at %s answers again; what was kept is being sent.", self._place)


def gathered(items: list[Item]) -> list[Item]:
    """The same operations run by run, neighbouring batches of a run joined into one; runs keep their order."""
    by_run: dict[Handle, list[Operation]] = {}
    for handle, operation in items:
        operations = by_run.setdefault(handle, [])
        before = operations[-1] if operations else None
        if isinstance(before, Batch) and isinstance(operation, Batch) and not before.attempts:
            before.add(operation)
        else:
            operations.append(operation)
    return [(handle, operation) for handle, operations in by_run.items() for operation in operations]


def write_undelivered(items: list[Refused], root: str) -> list[str]:
    """Write operations as JSON lines, one file per run, their files beside it; never raises.

    Args:
        items: run, operation, why it is here.
        root: directory or URL.

    Returns:
        The files written.
    """
    by_run: dict[Handle, list[tuple[Operation, str]]] = {}
    for handle, operation, reason in items:
        by_run.setdefault(handle, []).append((operation, reason))
    written: list[str] = []
    for handle, operations in by_run.items():
        path = f"{root}/{re.sub(r'[^A-Za-z0-9_.-]+', '_', handle.name)}-{digest(handle.key)[:8]}-{handle.start_ms}"
        try:
            _write_run(path, handle, operations)
        except Exception as error:
            log.error("What MLflow did not get of run %s cannot be written to %s either: %s.", handle.name, path, error)
        else:
            written.append(f"{path}.jsonl")
            log.warning("What MLflow did not get of run %s is in %s.jsonl.", handle.name, path)
    return written


def _write_run(path: str, handle: Handle, operations: list[tuple[Operation, str]]) -> None:
    fs, plain = fsspec.url_to_fs(path)
    who = {"run": handle.name, "key": handle.key, "id": handle.id, "parent": handle.parent and handle.parent.key}
    lines = [json.dumps({**who, "reason": reason, **operation.record()}) for operation, reason in operations]
    fs.makedirs(plain.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(f"{plain}.jsonl", "".join(f"{line}\n" for line in lines).encode())
    for operation, _ in operations:
        for name, data in operation.files().items():
            fs.makedirs(f"{plain}/{name}".rsplit("/", 1)[0], exist_ok=True)
            fs.pipe_file(f"{plain}/{name}", data)
