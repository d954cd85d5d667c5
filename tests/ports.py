"""Ports for what tests start."""

from __future__ import annotations

import contextlib
import random
import socket

_OURS = range(20_000, 32_000)
"""Below the ports that the system gives to whoever asks for any, so that nobody gets one before it is used."""


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that were free a moment ago."""
    found: list[int] = []
    candidates = random.SystemRandom().sample(_OURS, len(_OURS))
    while len(found) < count:
        with contextlib.suppress(OSError), socket.socket() as probe:
            port = candidates.pop()
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
