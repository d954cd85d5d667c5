"""What can be sent to MLflow about one run, as values that can be buffered, sent later, or written to a file."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

METRICS_PER_BATCH = 900  # MLflow takes 1,000 entities in one request
PARAMS_PER_BATCH = 90  # and 100 parameters or tags
UNIQUE_TAG = "boom_key"
ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(eq=False)
class Handle:
    """One run, known by its key before MLflow has given it an id.

    Attributes:
        key: value of the tag by which the same run is found again.
        name: what people see.
        parent: the run it is shown under.
        tags: tags it starts with.
        start_ms: when it started, milliseconds since 1970.
        experiment: id of its experiment.
        id: MLflow's id, once created or found.
        created: set when ``id`` is.
        status: what MLflow believes.
        ended: whether this process has ended it.
        params: parameters MLflow has.
        known_tags: tags MLflow has.
        last: of each metric MLflow has, the last step and its value.
    """

    key: str
    name: str
    parent: Handle | None
    tags: dict[str, str]
    start_ms: int
    experiment: str
    id: str | None = None
    created: threading.Event = field(default_factory=threading.Event)
    status: str = "RUNNING"
    ended: bool = False
    params: dict[str, str] = field(default_factory=dict)
    known_tags: dict[str, str] = field(default_factory=dict)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)


class Operation(ABC):
    """One thing to do to a run; doing it twice is the same as doing it once.

    Attributes:
        attempts: how often it failed while the server answered other requests.
    """

    attempts: int = 0

    @abstractmethod
    def apply(self, client: Any, handle: Handle) -> None:
        """Send it; raises whatever MLflow raises."""

    def parts(self) -> Iterator[Operation]:
        """Smaller operations that together do the same, so that one refused value does not take others with it."""
        yield self

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """It as JSON, for what could not be delivered."""

    def files(self) -> dict[str, bytes]:
        """Contents that belong to `record`, by path."""
        return {}


class Create(Operation):
    """Find the run by its key or create it."""

    def apply(self, client: Any, handle: Handle) -> None:
        """Fill in the handle's id and what MLflow knows; an unfinished run is RUNNING again."""
        found = client.search_runs(
            [handle.experiment], filter_string=f'tags.{UNIQUE_TAG} = "{handle.key}"', max_results=1
        )
        if found:
            self._adopt(client, handle, found[0])
        else:
            tags = {**handle.tags, UNIQUE_TAG: handle.key}
            if handle.parent is not None and handle.parent.id:
                tags["mlflow.parentRunId"] = handle.parent.id
            run = client.create_run(handle.experiment, start_time=handle.start_ms, tags=tags, run_name=handle.name)
            handle.id, handle.known_tags, handle.status = run.info.run_id, tags, "RUNNING"
            handle.last.clear()
        handle.created.set()

    def _adopt(self, client: Any, handle: Handle, run: Any) -> None:
        handle.id, handle.status = run.info.run_id, run.info.status
        handle.params, handle.known_tags = dict(run.data.params), dict(run.data.tags)
        for name in run.data.metrics:
            history = client.get_metric_history(handle.id, name)
            newest = max(history, key=lambda point: (point.step, point.timestamp))
            handle.last[name] = (newest.step, newest.value)
        if handle.status in ("FAILED", "KILLED"):
            _reopen(client, handle)
        Batch(tags={**handle.tags}).apply(client, handle)

    def record(self) -> dict[str, Any]:
        """The run's name and key are in every line; there is nothing to add."""
        return {"create": True}


@dataclass
class Batch(Operation):
    """Metrics ``(name, value, step, timestamp in ms)``, parameters and tags."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, other: Batch) -> None:
        """Take in a later batch of the same run; the first value of a parameter and the last of a tag stay."""
        self.metrics += other.metrics
        self.tags |= other.tags
        for name, value in other.params.items():
            if self.params.setdefault(name, value) != value:
                self.tags[f"changed.{name}"] = value

    def apply(self, client: Any, handle: Handle) -> None:
        """Send what MLflow does not have yet, reopening a finished run only for something new."""
        params = {name: value for name, value in self.params.items() if name not in handle.params}
        changed = {
            f"changed.{name}": value
            for name, value in self.params.items()
            if name in handle.params and handle.params[name] != value
        }
        tags = {k: v for k, v in (self.tags | changed).items() if handle.known_tags.get(k) != v}
        metrics = [point for point in self.metrics if _is_new(point, handle.last)]
        if (metrics or params or tags) and handle.status in ENDED:
            _reopen(client, handle)
        self._send(client, str(handle.id), metrics, params, tags)
        handle.params |= params
        handle.known_tags |= tags
        for name, value, step, _ in sorted(metrics, key=lambda point: point[2]):
            handle.last[name] = (step, value)

    @staticmethod
    def _send(
        client: Any, run: str, metrics: list[tuple[str, float, int, int]], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        texts: list[Any] = [Param(*item) for item in params.items()] + [RunTag(*item) for item in tags.items()]
        for start in range(0, len(texts), PARAMS_PER_BATCH):
            part = texts[start : start + PARAMS_PER_BATCH]
            client.log_batch(
                run,
                params=[one for one in part if isinstance(one, Param)],
                tags=[one for one in part if isinstance(one, RunTag)],
                synchronous=True,
            )
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            points = [
                Metric(name, value, at, step) for name, value, step, at in metrics[start : start + METRICS_PER_BATCH]
            ]
            client.log_batch(run, metrics=points, synchronous=True)

    def parts(self) -> Iterator[Operation]:
        """One operation per value."""
        yield from (Batch(metrics=[point]) for point in self.metrics)
        yield from (Batch(params={name: value}) for name, value in self.params.items())
        yield from (Batch(tags={name: value}) for name, value in self.tags.items())

    def record(self) -> dict[str, Any]:
        """Metrics, parameters and tags; a metric is [name, value, step, ms], NaN and infinity as text."""
        metrics = [
            [name, value if abs(value) < float("inf") else str(value), *rest] for name, value, *rest in self.metrics
        ]
        return {"metrics": metrics, "params": self.params, "tags": self.tags}


@dataclass
class Upload(Operation):
    """A file of the run given as bytes."""

    path: str
    data: bytes

    def apply(self, client: Any, handle: Handle) -> None:
        """Write it under its name into a temporary directory and send that."""
        place = PurePosixPath(self.path)
        with tempfile.TemporaryDirectory(prefix="boom-mlflow-") as folder:
            local = Path(folder) / place.name
            local.write_bytes(self.data)
            client.log_artifact(handle.id, str(local), str(place.parent) if place.parent.name else None)

    def record(self) -> dict[str, Any]:
        """The path; the content lies beside the record."""
        return {"file": self.path}

    def files(self) -> dict[str, bytes]:
        """The content."""
        return {self.path: self.data}


@dataclass
class UploadPath(Operation):
    """A file or folder on disk, read when it is sent."""

    path: Path
    folder: str | None

    def apply(self, client: Any, handle: Handle) -> None:
        """Send it, a folder with all it holds."""
        if self.path.is_dir():
            client.log_artifacts(handle.id, str(self.path), self.folder)
        else:
            client.log_artifact(handle.id, str(self.path), self.folder)

    def record(self) -> dict[str, Any]:
        """Where it is."""
        return {"path": str(self.path), "folder": self.folder}


@dataclass
class Finish(Operation):
    """The end of a run."""

    status: str
    end_ms: int

    def apply(self, client: Any, handle: Handle) -> None:
        """Set status and time; a run that had ended so and got nothing new keeps its time."""
        if handle.status != self.status:
            client.set_terminated(handle.id, self.status, self.end_ms)
            handle.status = self.status

    def record(self) -> dict[str, Any]:
        """Status and time."""
        return {"end": self.status, "end_ms": self.end_ms}


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def clean_name(name: str) -> str:
    """A name MLflow takes: letters, digits and ``_-. :/``, at most 250; ``ndcg@10`` becomes ``ndcg_at_10``."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"), flags=re.ASCII)[:250]


def _is_new(point: tuple[str, float, int, int], last: dict[str, tuple[int, float]]) -> bool:
    """Whether a metric point lies after what MLflow has; at the same step another value is new, an equal one is not."""
    name, value, step, _ = point
    before = last.get(name)
    return before is None or step > before[0] or (step == before[0] and value != before[1])


def _reopen(client: Any, handle: Handle) -> None:
    client.update_run(handle.id, status="RUNNING")
    handle.status = "RUNNING"
