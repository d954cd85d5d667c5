"""Fixtures shared by all tests; Ray's environment is set before anything imports Ray."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Short, because Ray puts sockets below it and their paths are limited to 107 bytes.
_HOME = Path(tempfile.mkdtemp(prefix="br-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every Ray port on the loopback address
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "HF_HUB_OFFLINE": "1",
}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # `CUDA_VISIBLE_DEVICES=0 pytest -k gpu` tests on one
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

import boom_ray.runtime  # noqa: E402
from tests.ports import free_ports  # noqa: E402

# beside Ray's tests an example may wait for seconds
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small Ray cluster for the whole session: 4 logical CPUs on loopback, shut down at the end."""
    from boom_ray.config import ClusterConfig

    config = ClusterConfig(num_cpus=4, object_store_gb=0.3, temp_dir=str(_HOME / "ray"))
    with boom_ray.runtime.cluster(config):
        yield


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    return free_ports(1)[0]
