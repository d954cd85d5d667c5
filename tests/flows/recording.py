"""A workspace without Ray and MLflow, and runs that remember what they were told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from boom_ray.flows.workspace import Workspace
from boom_ray.store import Store


class Remembered:
    """An MLflow run: its parameters, metrics, tags, texts, and how it ended; whatever is logged reopens it."""

    def __init__(self, name: str) -> None:
        self.name, self.handle = name, SimpleNamespace(ended=False)
        self.status = "RUNNING"
        self.logged: dict[str, dict[str, Any]] = {"params": {}, "metrics": {}, "tags": {}, "texts": {}}

    def params(self, values: Mapping[str, Any]) -> None:
        self._log("params", values)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._log("metrics", values)

    def tags(self, values: Mapping[str, Any]) -> None:
        self._log("tags", values)

    def text(self, name: str, content: str) -> None:
        self._log("texts", {name: content})

    def note(self, markdown: str) -> None:
        self._log("tags", {"note": markdown})

    def history(self, points: Any) -> None:
        self._log("metrics", {name: value for name, value, _, _ in points})

    def table(self, name: str, rows: Any) -> None:
        self._log("texts", {name: rows})

    def figure(self, name: str, figure: Any) -> None:
        self._log("texts", {name: figure})

    def end(self, status: str = "FINISHED") -> None:
        self.status, self.handle.ended = status, True

    def _log(self, kind: str, values: Mapping[str, Any]) -> None:
        if values:
            self.status = "RUNNING"
        self.logged[kind].update(values)


class Runs:
    """A tracker: runs by name; those left open end as FAILED, as a block that raises ends them."""

    def __init__(self) -> None:
        self.found: dict[str, Remembered] = {}

    def run(self, key: str, name: str, parent: Any = None, tags: Any = None) -> Remembered:
        run = self.found.setdefault(name, Remembered(name))
        run.logged["tags"].update(tags or {})
        return run

    def fail(self) -> dict[str, str]:
        """Status of every run after the job has failed."""
        for run in self.found.values():
            if not run.handle.ended:
                run.end("FAILED")
        return {name: run.status for name, run in self.found.items()}


def bare_workspace(root: Path) -> tuple[Workspace, Runs]:
    """A workspace with a local store; nothing is shown."""
    runs = Runs()
    store = Store(root)
    store.check_writable()
    space: Any = Workspace(store, runs, SimpleNamespace(say=lambda text: None), {})  # type: ignore[arg-type]
    return space, runs
