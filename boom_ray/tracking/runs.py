"""The tracker and its runs: what flows call."""

from __future__ import annotations

import csv
import getpass
import io
import json
import shlex
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from boom_ray.config.cluster import TrackingConfig
from boom_ray.tracking.connect import Place, connect, find_place
from boom_ray.tracking.delivery import Delivery
from boom_ray.tracking.models import LogModel, check_folder
from boom_ray.tracking.operations import (
    Batch,
    Create,
    Finish,
    Handle,
    Upload,
    UploadPath,
    clean_name,
    now_ms,
)

LONGEST_PARAM = 500  # MLflow takes 6,000 characters, older servers 500; nobody reads more in a table
LONGEST_TAG = 8000


class Run:
    """One MLflow run. No method raises because of the server, none waits for it, except `id`."""

    def __init__(self, handle: Handle, delivery: Delivery) -> None:
        """Made by `Tracker.run`."""
        self.handle, self._delivery = handle, delivery

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; None when the server does not answer."""
        if not self.handle.created.is_set():
            self._delivery.flush(timeout_s=30)
        return self.handle.id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested ones as ``a.b``, items of lists of sections as ``a.0.b``.

        A parameter cannot change in MLflow: another value of a known one becomes the tag ``changed.NAME``. A value over
        500 characters is cut, its whole text is the file ``params/NAME.txt``.
        """
        texts: dict[str, str] = {}
        for name, value in flatten(values):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            if len(text) > LONGEST_PARAM:
                self.text(f"params/{clean_name(name)}.txt", text)
                text = text[: LONGEST_PARAM - 1] + "…"
            texts[clean_name(name)] = text
        self._delivery.put(self.handle, Batch(params=texts))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers of one step."""
        at = now_ms()
        self.history((name, value, step, at) for name, value in values.items())

    def history(self, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Log many numbers: ``(name, value, step, milliseconds since 1970)``.

        Steps before the last one MLflow has of a name are skipped, and an equal value at that step, so that a member or
        job that goes back to its checkpoint does not draw its curves twice.
        """
        metrics = [(clean_name(name), float(value), int(step), int(at)) for name, value, step, at in points]
        self._delivery.put(self.handle, Batch(metrics=metrics))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; another value replaces the old one."""
        texts = {clean_name(name): str(value)[:LONGEST_TAG] for name, value in values.items()}
        self._delivery.put(self.handle, Batch(tags=texts))

    def note(self, markdown: str) -> None:
        """Set the description that the run's page shows, in Markdown, up to 8,000 characters."""
        self.tags({"mlflow.note.content": markdown})

    def text(self, name: str, content: str) -> None:
        """Log a text file, e.g. ``model_card.md``; one of the same name is replaced."""
        self._delivery.put(self.handle, Upload(name, content.encode("utf-8", "surrogatepass")))

    def figure(self, name: str, figure: Any) -> None:
        """Log a matplotlib figure; the ending of the name (``.png``, ``.svg``) decides its form."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format=Path(name).suffix.removeprefix(".") or "png", bbox_inches="tight")
        self._delivery.put(self.handle, Upload(name, buffer.getvalue()))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a CSV file, which MLflow shows as a table; the columns are all keys in order of appearance."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.text(name, buffer.getvalue())

    def file(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or a folder with all it holds, under ``folder``; it is read later and must stay until then."""
        self._delivery.put(self.handle, UploadPath(Path(path).absolute(), folder))

    def model(self, folder: Path, name: str, register_as: str | None = None) -> None:
        """Log a sentence-transformers folder; ``mlflow.sentence_transformers.load_model("runs:/ID/NAME")`` loads it.

        The folder is copied in the background and must stay until `Tracker.close`. The same content is logged once.

        Raises:
            ModelError: the folder is not complete, or holds Python or pickle files.
        """
        check_folder(folder)
        self._delivery.put(self.handle, LogModel(folder.absolute(), name, register_as))

    def end(self, status: str = "FINISHED") -> None:
        """Close the run as FINISHED, FAILED or KILLED; what is logged later reopens it."""
        self._delivery.put(self.handle, Finish(status, now_ms()))
        self.handle.ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end(status_of(kind))


class Tracker:
    """One experiment. A context manager: leaving it ends runs left open by how the block ended, and closes."""

    def __init__(self, place: Place, client: Any, experiment: str, undelivered: str, **timing: float) -> None:
        """Use `Tracker.open`; ``timing`` goes to `Delivery`."""
        self.place, self.client, self.experiment = place, client, experiment
        self.delivery = Delivery(client, lambda: client.get_experiment(experiment), place.shown, undelivered, **timing)
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    @staticmethod
    def open(config: TrackingConfig, store_root: str, **timing: float) -> Tracker:
        """Connect; the experiment is created if it is new.

        Args:
            config: its ``uri``, else MLFLOW_TRACKING_URI, else ``<store>/mlflow.db`` (see `find_place`).
            store_root: absolute path or URL of the store.
            timing: ``interval_s`` and ``longest_wait_s`` of `Delivery`.

        Raises:
            TrackingError: the place cannot be reached or written; found within seconds.
        """
        place = find_place(config, store_root)
        client, experiment = connect(place, config.experiment)
        return Tracker(place, client, experiment, f"{store_root.rstrip('/')}/mlflow-undelivered", **timing)

    def run(self, key: str, name: str, parent: Run | None = None, tags: Mapping[str, Any] | None = None) -> Run:
        """The run of ``key``: created, or found again from an earlier job.

        One that was cut short or failed is RUNNING again at once; a finished one when something new is logged.

        Args:
            key: identity within the experiment, without double quotes.
            name: what people see.
            parent: the run under which it is shown.
            tags: set at creation, or again.

        Raises:
            ValueError: the key holds a double quote.
        """
        if '"' in key:
            raise ValueError(f"a run's key must not hold a double quote: {key}")
        texts = {clean_name(tag): str(value)[:LONGEST_TAG] for tag, value in (tags or {}).items()}
        above = parent.handle if parent is not None else None
        with self._lock:
            known = self._runs.get(key)
            if known is None:
                handle = Handle(key, name, above, _source() | texts, now_ms(), self.experiment)
                self._runs[key] = Run(handle, self.delivery)
                self.delivery.put(handle, Create())
                return self._runs[key]
        known.handle.ended = False
        known.tags(texts)
        return known

    def how_to_open(self) -> str:
        """What to type or click to see the runs."""
        # the query opens the pages for training runs; MLflow's default is those for prompts and traces
        page = f"/#/experiments/{self.experiment}/runs?workflowType=machine_learning"
        if self.place.artifacts is None:
            return self.place.shown.rstrip("/") + page
        command = [str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", self.place.shown]
        return f"{shlex.join(command)}   # then open http://127.0.0.1:5000{page}"

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Send what is buffered; False when the server does not answer in time."""
        return self.delivery.flush(timeout_s)

    def close(self, status: str = "FINISHED") -> list[str]:
        """End the runs still open, send everything, and write what cannot be sent.

        Returns:
            Files below ``<store>/mlflow-undelivered`` with what MLflow did not get; empty when it has everything.
        """
        for run in reversed(self._runs.values()):
            if not run.handle.ended:
                run.end(status)
        self._runs = {}
        return self.delivery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(status_of(kind))


def status_of(kind: type[BaseException] | None) -> str:
    """MLflow's word for how a block ended: KILLED for Ctrl-C and exits, FAILED for errors."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"


def flatten(values: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested sections with dotted names, as overrides name them; lists of plain values are leaves."""
    if isinstance(values, Mapping) and values:
        pairs: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(values, list | tuple) and any(isinstance(item, Mapping) for item in values):
        pairs = enumerate(values)
    else:
        return [(prefix, values)]
    return [leaf for name, value in pairs for leaf in flatten(value, f"{prefix}.{name}" if prefix else str(name))]


def _source() -> dict[str, str]:
    """The tags by which MLflow's pages say who ran what."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
