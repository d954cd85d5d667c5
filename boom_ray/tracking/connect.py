"""Where runs are logged, and whether that place can be reached, found out before hours of work."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from boom_ray.config.cluster import TrackingConfig
from boom_ray.errors import TrackingError
from boom_ray.hashing import digest

CHECK_S = 5  # how long the first contact may take
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the delivery thread retries; MLflow's own seven take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else the pages open among prompts and traces
    "mlflow.note.content": "Bagging-based robust model merging with boom_ray: one run per job, its stages and members "
    "below it.",
}
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
ADVICE = "Start the server or correct tracking.uri (or MLFLOW_TRACKING_URI); tracking.uri=null logs into the store."


@dataclass(frozen=True)
class Place:
    """Where runs go.

    Attributes:
        uri: MLflow tracking URI.
        artifacts: URI for the files of a new experiment; None where the server decides.
    """

    uri: str
    artifacts: str | None

    @property
    def shown(self) -> str:
        """The URI without its password."""
        parts = urllib.parse.urlsplit(self.uri)
        return self.uri.replace(f":{parts.password}@", ":***@") if parts.password else self.uri


def find_place(config: TrackingConfig, store_root: str) -> Place:
    """The tracking URI of the configuration, else of MLFLOW_TRACKING_URI, else a SQLite file beside the artifacts.

    SQLite needs a local disk, so for a store that is not local the file and the pictures go to
    ``~/.boom_ray/<hash of the store>/`` on the driver's machine; use a server there to share them.
    """
    fs, path = fsspec.url_to_fs(store_root)
    local = isinstance(fs, LocalFileSystem)
    base = Path(path).absolute() if local else Path.home() / ".boom_ray" / digest(store_root)[:12]
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{base / 'mlflow.db'}"
    served = uri.startswith(("http:", "https:", "databricks"))
    return Place(uri, None if served else (base / "mlflow-artifacts").as_uri())


def connect(place: Place, experiment: str) -> tuple[Any, str]:
    """An ``MlflowClient`` that has talked to the place, and the id of the experiment, which is created if new.

    Raises:
        TrackingError: it cannot be reached or written, within seconds; or the experiment was deleted.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _check(place)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        with _hasty_http():
            client = mlflow.MlflowClient(tracking_uri=place.uri, registry_uri=place.uri)
            return client, _experiment(client, place, experiment)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"MLflow at {place.shown} cannot be used: {error} {ADVICE}") from error


def _experiment(client: Any, place: Place, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=place.artifacts, tags=EXPERIMENT_TAGS))
        except Exception:
            found = client.get_experiment_by_name(name)  # another job may have been faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"The MLflow experiment '{name}' at {place.shown} was deleted. Restore it with 'mlflow experiments restore "
            f"-x {found.experiment_id}' or set tracking.experiment to another name."
        )
    return str(found.experiment_id)


@contextlib.contextmanager
def _hasty_http() -> Iterator[None]:
    """Let the first requests fail after `CHECK_S` instead of the usual time."""
    before = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(CHECK_S)
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = before


def _check(place: Place) -> None:
    parts = urllib.parse.urlsplit(place.uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite":
        _check_sqlite(place)
    elif scheme in PORTS and parts.hostname and not _proxied(scheme, parts.hostname):
        _check_host(place, parts.hostname, parts.port or PORTS[scheme])
    elif scheme in ("", "file") and place.uri != "databricks":
        raise TrackingError(
            f"MLflow no longer logs into plain folders such as {place.uri}. Use sqlite:///PATH/mlflow.db or a server's "
            f"address as tracking.uri, or leave it null to log into the store."
        )


def _check_host(place: Place, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=CHECK_S).close()
    except OSError as error:
        raise TrackingError(f"The MLflow server {place.shown} cannot be reached: {error}. {ADVICE}") from error


def _check_sqlite(place: Place) -> None:
    """Open the file for writing: SQLAlchemy inside MLflow would retry a hopeless one for minutes."""
    path = urllib.parse.urlsplit(place.uri).path.removeprefix("/")
    if path in ("", ":memory:"):
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=CHECK_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"The MLflow database {place.uri} cannot be opened for writing: {error}. Fix its permissions, or set "
            f"tracking.uri to another file or server."
        ) from error


def _proxied(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
