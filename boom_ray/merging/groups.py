"""A merge on the cluster: one task, or a task per saved file, on machines that have the members' files."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from boom_ray.disk import new_draft
from boom_ray.errors import BoomError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.job import MOST_THREADS, FileResult, MergeJob, merge_files
from boom_ray.merging.stream import SavedFile
from boom_ray.runtime import cause, event_queue, nodes_resources
from boom_ray.store import ARTIFACT, Draft, Store

LONG_BYTES = 1 << 30
"""Merges that read less take seconds and report only their end: a queue for events takes longer to start."""
RETRIES = 3
PART = ".part-"
STOPPING_S = 60.0
"""Longest wait for tasks to end that are not needed any more."""
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
        reserved = with_cpus(job)
        result: T = _result(_remote(reserved, "merge", places(job)[0]).remote(_call, reserved, function, queue))
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
    reserved, nodes = with_cpus(job), itertools.cycle(places(job))
    shared = ray.put(reserved)  # what is known about many tensors travels once per machine
    waiting = {
        _remote(reserved, f"merge {file.name}", next(nodes)).remote(
            _merge_file, shared, file, key, draft.path, folder
        ): file
        for file in files
    }
    if not job.store.is_local:
        draft.placed |= {_name(folder, file): 0 for file in files}  # so that a failure takes back what went up
    try:
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            file = waiting.pop(ready[0])
            result.add(_result(ready[0]))
            done += file.nbytes
            if not job.store.is_local:
                draft.placed[_name(folder, file)] = job.store.uploaded_size("merge", key, _name(folder, file))
            report(Event("merge", "merged", done, total, measure="bytes"))
    finally:
        _stop(list(waiting))
        for part in draft.path.glob(f"{PART}*"):  # of tasks that were killed
            shutil.rmtree(part, ignore_errors=True)
    return result


def _stop(references: Sequence[Any]) -> None:
    """End tasks whose result nobody wants any more, and wait until none of them writes."""
    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(list(references), num_returns=len(references), timeout=STOPPING_S)


def _merge_file(job: MergeJob, file: SavedFile, key: str, draft: Path, folder: str) -> FileResult:
    """Merge one file beside its place and move it there: into the draft that all machines see, or up into the store."""
    local = job.store.is_local
    parent = draft if local else job.store.scratch
    part = new_draft(parent, PART)
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


def with_cpus(job: MergeJob) -> MergeJob:
    """The same merge with as many threads as its tasks reserve CPUs."""
    return dataclasses.replace(job, config=job.config.model_copy(update={"cpus": cpus(job)}))


def places(job: MergeJob) -> list[str | None]:
    """Machines that tasks should run on, those with most bytes of the models first; [None] with one machine.

    Folders on a disk of one machine can be read there only. Artifacts of a remote store can be read by all, and are
    copied to each machine that does; machines that have copies come first.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if len(nodes) < 2:
        return [None]
    refs = [*job.inputs.members, *([job.inputs.base] if job.inputs.base else [])]
    ask, paths = ray.remote(_here), [ref.path for ref in refs]
    there = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
    asked = {
        node: ask.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(job.store, paths)
        for node, place in there.items()
    }
    found = {}
    for node, reference in asked.items():
        with contextlib.suppress(ray.exceptions.RayError):  # a machine that has just gone has nothing
            found[node] = ray.get(reference)
    return ranked(found)


def ranked(found: Mapping[str, tuple[int, int]]) -> list[str | None]:
    """Machines that can read most models, by the bytes that they need not copy.

    Args:
        found: machine to the number of models that it can read, and the bytes of them that are there.
    """
    most = max((readable for readable, _ in found.values()), default=0)
    able = [node for node, (readable, _) in found.items() if readable == most]
    best = sorted(able, key=lambda node: -found[node][1])
    return [*best] if best else [None]


def _here(store: Store, paths: Sequence[str]) -> tuple[int, int]:
    """Number of models that this machine can read, and bytes of their files that it need not copy for that."""
    folders = [store.local_folder(path) for path in paths]
    readable = sum(folder is not None or path.startswith(ARTIFACT) for folder, path in zip(folders, paths, strict=True))
    files = [file for folder in folders if folder for file in folder.rglob("*") if file.is_file()]
    return readable, sum(file.stat().st_size for file in files)


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
