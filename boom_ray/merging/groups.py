"""A merge on the cluster: one task, or a task per saved file, on machines that have the members' files."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from boom_ray.errors import BoomError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.job import MOST_THREADS, FileResult, MergeJob, merge_files
from boom_ray.merging.stream import SavedFile
from boom_ray.runtime import cause, event_queue, nodes_resources
from boom_ray.store import Draft, Store

LONG_BYTES = 1 << 30
"""Merges that read less take seconds and report only their end: a queue for events takes longer to start."""
RETRIES = 3
PART = ".part-"
T = TypeVar("T")


def on_cluster(job: MergeJob, function: Callable[[MergeJob, Report], T], report: Report, nbytes: int) -> T:
    """Call a function of the merge in one Ray task.

    Args:
        job: the merge.
        function: what to call.
        report: told the function's events, when there is much to read.
        nbytes: bytes that it reads.
    """
    with _queue(report, nbytes) as queue:
        result: T = _result(_remote(job, "merge", places(job)[0]).remote(_call, job, function, queue))
    return result


def _call(job: MergeJob, function: Callable[[MergeJob, Report], T], queue: Any) -> T:
    return function(job, silent if queue is None else queue.put)


def spread(
    job: MergeJob, files: Sequence[SavedFile], key: str, draft: Draft, folder: str, report: Report
) -> FileResult:
    """Merge every saved file in a task of its own.

    A task that is lost with its machine runs again elsewhere and writes the same bytes; a file is renamed into place
    when it is complete.

    Args:
        job: the merge, with all that is known.
        files: files of the merged model.
        key: key of the artifact, where files of remote stores go.
        draft: where files of local stores go.
        folder: the model's folder in the artifact.
        report: told the bytes of the finished files.
    """
    total, done, result = sum(file.nbytes for file in files), 0, FileResult()
    shared = ray.put(job)  # what is known about many tensors travels once per machine
    nodes = itertools.cycle(places(job))
    waiting = {
        _remote(job, f"merge {file.name}", next(nodes)).remote(_merge_file, shared, file, key, draft.path, folder): file
        for file in files
    }
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        file = waiting.pop(ready[0])
        result.add(_result(ready[0]))
        done += file.nbytes
        if not job.store.is_local:
            draft.placed[_name(folder, file)] = job.store.uploaded_size("merge", key, _name(folder, file))
        report(Event("merge", "merged", done, total))
    for part in draft.path.glob(f"{PART}*"):  # of tasks that were killed
        shutil.rmtree(part, ignore_errors=True)
    return result


def _merge_file(job: MergeJob, file: SavedFile, key: str, draft: Path, folder: str) -> FileResult:
    """Merge one file beside its place and move it there: into the draft that all machines see, or up into the store."""
    local = job.store.is_local
    parent = draft if local else job.store.scratch
    part = Path(tempfile.mkdtemp(prefix=PART, dir=parent))
    try:
        with job.opened(check=False) as opened:
            result = merge_files(job, opened, [file], part, silent, file.nbytes)
        made, name = part / file.module / file.name, _name(folder, file)
        if local:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            made.replace(draft / name)
        else:
            job.store.upload(made, "merge", key, name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return result


def _name(folder: str, file: SavedFile) -> str:
    return "/".join(part for part in (folder, file.module, file.name) if part)


def _remote(job: MergeJob, name: str, node: str | None) -> Any:
    """A remote function that calls what it is given; it runs again when its machine is lost."""
    options: dict[str, Any] = {"num_cpus": cpus(job), "max_retries": RETRIES, "name": name}
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
    return ray.remote(_apply).options(**options)


def _apply(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


def cpus(job: MergeJob) -> int:
    """CPUs of one task: as configured, or those of the smallest machine, at most `MOST_THREADS`."""
    if job.config.cpus:
        return job.config.cpus
    found = [int(node["CPU"]) for node in nodes_resources() if node["CPU"] >= 1]
    return max(1, min([MOST_THREADS, *found]))


def places(job: MergeJob) -> list[str | None]:
    """Machines that tasks should run on: those that have most bytes of the models; [None] when it makes no difference.

    Files on a disk of one machine can be read there only; artifacts of a remote store are copied to each machine that
    reads them, so machines that have their copies come first.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if len(nodes) < 2:
        return [None]
    refs = [*job.inputs.members, *([job.inputs.base] if job.inputs.base else [])]
    ask, paths = ray.remote(_bytes_here), [ref.path for ref in refs]
    there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
    asked = {
        node: ask.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(job.store, paths)
        for node, place in there.items()
    }
    found = {}
    for node, reference in asked.items():
        with contextlib.suppress(ray.exceptions.RayError):  # a machine that has just gone has nothing
            found[node] = ray.get(reference)
    most = max(found.values(), default=0)
    return [node for node, size in found.items() if size == most and most > 0] or [None]


def _bytes_here(store: Store, paths: Sequence[str]) -> int:
    """Bytes of the models' files that this machine can read without copying them."""
    folders = [store.local_folder(path) for path in paths]
    return sum(file.stat().st_size for folder in folders if folder for file in folder.rglob("*") if file.is_file())


@contextlib.contextmanager
def _queue(report: Report, nbytes: int) -> Iterator[Any]:
    if report is silent or nbytes < LONG_BYTES:
        yield None
        return
    with event_queue(report) as queue:
        yield queue


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = cause(error)
        if isinstance(problem, BoomError):
            raise problem from error
        raise
