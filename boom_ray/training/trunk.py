"""What a trunk leaves for its branches, and how they begin with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from boom_ray.errors import BoomError, TrainingError
from boom_ray.store import Draft, Store
from boom_ray.training.job import VERSION, TrunkJob
from boom_ray.training.loop import Loop
from boom_ray.training.state import file_of, restore, snapshot, write

STATE = "state"


def leave_trunk(store: Store, job: TrunkJob, loop: Loop, figures: dict[str, Any]) -> None:
    """Make the trunk's artifact: a checkpoint under ``state/``; all workers must call it.

    Workers that hold a share of the weights hand their files to the first one through the store, which all of them see.

    Args:
        store: where to.
        job: the trunk.
        loop: at its last step, and checked.
        figures: of the artifact.

    Raises:
        StoreError: the store cannot be written.
    """
    progress, rank, holders = loop.standing(), loop.group.rank, loop.weights.holders
    shares = store.folder(f"training/{job.key}.shares")
    if 0 < rank < holders:
        store.fs.makedirs(shares, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="boom-trunk-") as scratch:
            write(Path(scratch), snapshot(loop.weights, loop.optimizer), loop.weights, progress, rank)
            file = file_of(Path(scratch), rank)
            store.fs.put_file(str(file), f"{shares}/{file.name}")
    loop.group.first_fault(None)  # until here all files have arrived
    if rank > 0:
        return

    def build(draft: Draft) -> None:
        folder = draft.path / STATE
        folder.mkdir()
        write(folder, snapshot(loop.weights, loop.optimizer), loop.weights, progress, 0)
        for other in range(1, holders):
            file = file_of(folder, other)
            store.fs.get_file(f"{shares}/{file.name}", str(file))
        draft.figures |= figures

    store.materialize(job.kind, job.spec(), job.inputs(), build, VERSION)
    if store.fs.exists(shares):
        store.fs.rm(shares, recursive=True)


def begin(store: Store, trunk: TrunkJob, loop: Loop) -> None:
    """Put weights, moments and progress of a trunk into a loop; all workers must call it.

    Raises:
        TrainingError: it is missing or cannot be read, on any worker.
    """
    fault = None
    try:
        found = store.get(trunk.kind, trunk.key)
        if found is None:
            raise TrainingError(f"{trunk.name} is missing from {store.root}; run the job again to train it again.")
        progress = restore(found.local() / STATE, loop.weights, loop.optimizer)
    except (BoomError, OSError) as error:
        fault = str(error)
    fault = loop.group.first_fault(fault)
    if fault is not None:
        raise TrainingError(fault)
    loop.resume(progress)
