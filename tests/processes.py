"""Processes below a process, of which some may end while they are looked at."""

from __future__ import annotations

import psutil


def descendants(title: str, pid: int | None = None) -> list[psutil.Process]:
    """Those whose name or command line has this text, by number.

    Args:
        title: Ray writes what a worker does into its command line.
        pid: number of the process they descend from; None: this one.
    """
    return sorted(
        (one for one in psutil.Process(pid).children(recursive=True) if title in _titles(one)), key=lambda one: one.pid
    )


def _titles(process: psutil.Process) -> str:
    try:
        return f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return ""
