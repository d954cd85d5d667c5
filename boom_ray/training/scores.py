"""Scores of members while they train: workers leave their weights in the store, tasks of the driver evaluate them.

The driver owns the tasks, so a worker neither waits for them nor dies with them; they run where resources are free, at
the latest when the members have ended.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from safetensors.torch import load_file, save_file

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.config import ProgressScoresConfig
from boom_ray.disk import owned_name
from boom_ray.events import SCORES_OF_MEMBERS as STAGE
from boom_ray.events import Event, Report
from boom_ray.runtime import cause
from boom_ray.store import Store
from boom_ray.training.job import MemberJob
from boom_ray.training.leave import write_folder

Scorer = Callable[[Path], dict[str, float]]
"""A model folder to figures by name; runs in a Ray task, so it and what it holds are pickled."""


@dataclass(frozen=True)
class Saved:
    """Weights that a worker has left to be evaluated.

    Attributes:
        member: name of the member.
        step: finished steps.
        steps: of all its steps.
        place: the file, as the store's file system names it.
    """

    member: str
    step: int
    steps: int
    place: str


class Leaver:
    """Leaves weights in the store, beside training.

    Args:
        store: where to.
        job: the member.
        steps: its steps.
        tell: takes `Saved`, and an event when weights could not be left.
    """

    def __init__(self, store: Store, job: MemberJob, steps: int, tell: Callable[[Saved | Event], None]) -> None:
        """Nothing is left yet."""
        self.store, self.job, self.steps, self.tell = store, job, steps, tell
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scores")
        self._last: Future[None] | None = None

    def leave(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy the weights to the store in a thread of its own; but not beside the copy before."""
        if self._last is not None and not self._last.done():  # a slow store would fill the memory with copies
            note = f"step {step} is not evaluated: the weights before it are still on their way to the store"
            self.tell(Event(STAGE, self.job.name, step, self.steps, {}, note))
            return
        self._last = self._pool.submit(self._try, step, dict(weights))

    def _try(self, step: int, weights: dict[str, torch.Tensor]) -> None:
        try:
            self._leave(step, weights)
        except Exception as error:  # a score that is missing must not stop a member
            note = f"the weights of step {step} could not be left for evaluation: {error}"
            self.tell(Event(STAGE, self.job.name, step, self.steps, {}, note))

    def _leave(self, step: int, weights: dict[str, torch.Tensor]) -> None:
        folder = _folder(self.store, self.job)
        self.store.fs.makedirs(folder, exist_ok=True)
        place = f"{folder}/{owned_name(f'step{step:09d}-')}.safetensors"  # no other attempt has or removes it
        with tempfile.TemporaryDirectory(prefix="boom-scores-") as scratch:
            save_file(weights, f"{scratch}/weights.safetensors")
            self.store.fs.put_file(f"{scratch}/weights.safetensors", place)
        self.tell(Saved(self.job.name, step, self.steps, place))

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True)


class ScoreTasks:
    """The driver's side: an evaluation per `Saved`.

    Args:
        store: where weights are.
        jobs: the members.
        scorer: what evaluates a folder.
        config: resources of a task.
        report: told the figures, as ``score/NAME`` at their step.
    """

    def __init__(
        self, store: Store, jobs: Mapping[str, MemberJob], scorer: Scorer, config: ProgressScoresConfig, report: Report
    ) -> None:
        """No task yet."""
        self.store, self.jobs, self.scorer, self.report = store, jobs, scorer, report
        self._remote = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus, max_retries=2)(_score)
        self._running: dict[str, deque[tuple[Saved, Any]]] = {}

    def start(self, saved: Saved) -> None:
        """Evaluate when there is room."""
        reference = self._remote.remote(self.store, self.jobs[saved.member], saved.place, self.scorer)
        self._running.setdefault(saved.member, deque()).append((saved, reference))

    def collect(self, wait: bool = False) -> None:
        """Report what has ended, each member's steps in their order; with ``wait`` everything.

        A failed evaluation is a note, never a failed member.
        """
        for waiting in self._running.values():
            while waiting and ray.wait([waiting[0][1]], timeout=None if wait else 0)[0]:
                self._tell(*waiting.popleft())

    def _tell(self, saved: Saved, reference: Any) -> None:
        try:
            figures = {f"score/{name}": value for name, value in ray.get(reference).items()}
            note = ""
        except Exception as error:
            figures, note = {}, f"evaluation at step {saved.step} failed: {cause(error)}"
            with contextlib.suppress(Exception):  # it is gone, or the store is
                self.store.fs.rm_file(saved.place)
        self.report(Event(STAGE, saved.member, saved.step, saved.steps, figures, note))


def remove_left(store: Store, job: MemberJob) -> None:
    """Remove weights that nobody will evaluate: those of earlier attempts of a member that is ours alone to train."""
    folder = _folder(store, job)
    if store.fs.exists(folder):
        store.fs.rm(folder, recursive=True)


def _folder(store: Store, job: MemberJob) -> str:
    return store.folder(f"training/{job.key}.scores")


def _score(store: Store, job: MemberJob, place: str, scorer: Scorer) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="boom-scores-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        store.fs.get_file(place, f"{scratch}/weights.safetensors")
        write_folder(store, job, load_file(f"{scratch}/weights.safetensors"), folder)
        figures = scorer(folder)
    store.fs.rm_file(place)
    return figures
