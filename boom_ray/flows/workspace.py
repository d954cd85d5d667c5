"""What every flow needs around its stages: the store, Ray, MLflow, and somebody who listens to progress."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boom_ray.config import ClusterConfig, TrackingConfig
from boom_ray.events import SCORES_OF_MEMBERS, Event
from boom_ray.progress import Progress
from boom_ray.runtime import cluster
from boom_ray.store import Store
from boom_ray.tracking import Run, Tracker

JOB_FOLDER = "_ray_pkg_"


def _started() -> None:
    """Ray runs already."""


@dataclass
class Workspace:
    """An open workspace; calling it with an event shows the event and logs it.

    Attributes:
        store: all artifacts.
        tracker: the MLflow experiment.
        progress: the table on the screen.
        curves: unit of the ``members`` stage to the MLflow run that takes its figures.
        start_ray: starts or joins the cluster, if that was put off; once.
    """

    store: Store
    tracker: Tracker
    progress: Progress
    curves: dict[str, Run]
    start_ray: Callable[[], None] = _started

    def __call__(self, event: Event) -> None:
        """Show an event; figures of members in training become points of their curves in MLflow."""
        self.progress(event)
        run = self.curves.get(event.unit)
        if event.stage in {"members", SCORES_OF_MEMBERS} and event.figures and run is not None:
            run.metrics(event.figures, step=int(event.done))


@contextlib.contextmanager
def workspace(store: str, tracking: TrackingConfig, ray: ClusterConfig, ray_later: bool = False) -> Iterator[Workspace]:
    """Open everything in the order in which it can fail: store, tracking server, Ray; close it in reverse.

    Args:
        store: as configured.
        tracking: where MLflow is.
        ray: which cluster.
        ray_later: start Ray only when `Workspace.start_ray` is called: there may be nothing to compute.

    Raises:
        StoreError: the store cannot be written.
        TrackingError: the tracking server cannot be reached.
    """
    opened = Store(store_root(store))
    opened.check_writable()
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(Tracker.open(tracking, opened.root))

        @functools.cache
        def start_ray() -> None:
            stack.enter_context(cluster(ray))

        if not ray_later:
            start_ray()
        progress = stack.enter_context(Progress())
        stack.enter_context(_logging_to(progress.log_handler()))
        yield Workspace(opened, tracker, progress, {}, start_ray)


@contextlib.contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let log records go through the progress table, which lines on standard error would break."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield
    finally:
        root.handlers = before


def store_root(store: str) -> str:
    """Where a configured store is.

    A relative path counts from the current directory, except inside a submitted Ray job, whose directory is thrown
    away when the job ends: there it counts from ``~/boom_ray``.
    """
    if "://" in store or Path(store).expanduser().is_absolute():
        return str(Path(store).expanduser()) if "://" not in store else store
    origin = Path.cwd()
    return str((Path.home() / "boom_ray" if JOB_FOLDER in str(origin) else origin) / store)
