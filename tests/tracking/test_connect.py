from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

import boom_ray.tracking.connect as connect_module
from boom_ray.config.cluster import TrackingConfig
from boom_ray.errors import TrackingError
from boom_ray.tracking import Tracker
from boom_ray.tracking.connect import Place, connect, find_place

pytestmark = pytest.mark.slow


def test_the_configuration_wins_over_the_environment_over_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment:5000")
    assert find_place(TrackingConfig(uri="http://from-config"), str(tmp_path)).uri == "http://from-config"
    assert find_place(TrackingConfig(), str(tmp_path)).uri == "http://from-environment:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert find_place(TrackingConfig(), str(tmp_path)).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_files_lie_in_a_local_store_and_a_server_decides_for_itself(tmp_path):
    assert (
        find_place(TrackingConfig(uri="sqlite:////x.db"), str(tmp_path)).artifacts
        == f"file://{tmp_path}/mlflow-artifacts"
    )
    assert find_place(TrackingConfig(uri="https://server"), str(tmp_path)).artifacts is None


def test_a_remote_store_keeps_its_database_on_the_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other = (find_place(TrackingConfig(), f"memory://{name}") for name in ("one", "other"))
    assert one.uri.startswith(f"sqlite:///{tmp_path}/.boom_ray/") and one.uri != other.uri


def test_a_password_is_not_shown():
    assert Place("postgresql://me:secret@host/db", None).shown == "postgresql://me:***@host/db"


def test_a_closed_port_is_said_at_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(TrackingError, match=f"http://127.0.0.1:{port} cannot be reached.*tracking.uri"):
        Tracker.open(TrackingConfig(uri=f"http://127.0.0.1:{port}"), str(tmp_path))


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(connect_module, "CHECK_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TrackingError, match=r"cannot be used.*timed out"):
            Tracker.open(TrackingConfig(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), str(tmp_path))


def test_a_plain_folder_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(TrackingError, match="sqlite:///"):
        Tracker.open(TrackingConfig(uri=str(tmp_path)), str(tmp_path))


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(TrackingError, match=r"mlflow.db cannot be opened for writing: file is not a database"):
        Tracker.open(TrackingConfig(), str(tmp_path))


def test_a_locked_database_is_named(store: Path, monkeypatch):
    monkeypatch.setattr(connect_module, "CHECK_S", 0.1)
    holder = sqlite3.connect(store / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TrackingError, match="locked"):
        Tracker.open(TrackingConfig(), str(store))
    holder.close()


def test_a_deleted_experiment_says_how_to_restore_it(store: Path):
    place = find_place(TrackingConfig(), str(store))
    client, experiment = connect(place, "boom_ray")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"experiments restore -x {experiment}"):
        connect(place, "boom_ray")


def test_an_experiment_keeps_its_files_below_the_store_whatever_the_working_directory(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client, experiment = connect(find_place(TrackingConfig(), str(store)), "boom_ray")
    assert client.get_experiment(experiment).artifact_location == f"file://{store}/mlflow-artifacts"
    assert not (tmp_path / "mlruns").exists()


def test_an_experiment_opens_among_training_runs_not_prompts(store):
    client, experiment = connect(find_place(TrackingConfig(), str(store)), "boom_ray")
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
