"""A tracker on a SQLite file whose tables were made once, and a client that can be made to fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boom_ray.config.cluster import TrackingConfig
from boom_ray.tracking import Tracker
from boom_ray.tracking.connect import Place, connect


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(Place(f"sqlite:///{path}", None), "Default")
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with an MLflow database that has tables and no runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "store"
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    return root


class Flaky:
    """A client whose calls fail while ``failing`` says so."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.failing: Callable[[str], Exception | None] = lambda name: None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            error = self.failing(name)
            if error is not None:
                raise error
            return method(*args, **kwargs)

        return call


@pytest.fixture
def open_tracker(store: Path) -> Iterator[Callable[[], Tracker]]:
    """Opens trackers on one store, as one job after the other would; what is left open is closed."""
    trackers: list[Tracker] = []

    def open_one() -> Tracker:
        tracker = Tracker.open(TrackingConfig(), str(store), interval_s=0.02, longest_wait_s=0.1)
        trackers.append(tracker)
        return tracker

    yield open_one
    for tracker in trackers:
        tracker.close()


@pytest.fixture
def flaky(open_tracker: Callable[[], Tracker], store: Path) -> tuple[Tracker, Flaky]:
    """A tracker and the client under it that can be made to fail."""
    good = open_tracker()
    client = Flaky(good.client)
    tracker = Tracker(
        good.place, client, good.experiment, f"{store}/mlflow-undelivered", interval_s=0.02, longest_wait_s=0.05
    )
    return tracker, client
