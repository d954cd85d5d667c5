"""Reading many source files on all cores of this machine.

Readers are processes of their own that get file names and give JSON lines: no pool that imports the job again, and no
Ray task, which might run on a machine that has other versions installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boom_ray
from boom_ray.corpus.embedded.parse import Function, Note, Record, parse_source
from boom_ray.corpus.embedded.sources import Source
from boom_ray.errors import DataError

FEW = 60  # files; starting a process takes longer than reading so many
MOST_READERS = 8


def read_sources(sources: Sequence[Source], readers: int | None = None) -> list[Record]:
    """Records of all files, in the order of the files, whatever the number of readers.

    Args:
        sources: the files.
        readers: processes; by default as many as this process may use cores, at most 8, and none for few files.

    Raises:
        DataError: a file cannot be read, or a reader ended with an error.
    """
    count = readers or (1 if len(sources) <= FEW else min(MOST_READERS, len(os.sched_getaffinity(0))))
    if count == 1:
        return [record for source in sources for record in _read(source)]
    with ThreadPoolExecutor(count) as pool:
        parts = list(pool.map(_read_elsewhere, [sources[first::count] for first in range(count)]))
    return [record for index in range(len(sources)) for record in parts[index % count][index // count]]


def _read(source: Source) -> list[Record]:
    try:
        text = source.path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"The source file {source.path} of the embedded text cannot be read: {error}.") from error
    return parse_source(text, source.module)


def _read_elsewhere(sources: Sequence[Source]) -> list[list[Record]]:
    request = json.dumps([[str(source.path), source.module] for source in sources])
    path = os.pathsep.join([str(Path(boom_ray.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "boom_ray.corpus.embedded.read"],
        input=request.encode(),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)},
        check=False,
    )
    if done.returncode:
        raise DataError(f"A reader of the embedded text failed: {done.stderr.decode(errors='replace').strip()[-600:]}")
    return [[_record(value) for value in json.loads(line)] for line in done.stdout.splitlines()]


def _record(value: dict[str, Any]) -> Record:
    if "kind" in value:
        return Note(**value)
    value["parameters"] = tuple((name, words) for name, words in value["parameters"])
    return Function(**value)


def main() -> None:
    """Read file and module names as one JSON value on stdin; write one JSON line of records per file on stdout."""
    for path, module in json.loads(sys.stdin.buffer.read()):
        records = [vars(record) for record in _read(Source(Path(path), module))]
        sys.stdout.buffer.write(json.dumps(records).encode() + b"\n")


if __name__ == "__main__":
    main()
