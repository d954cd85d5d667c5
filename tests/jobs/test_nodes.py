"""Two machines, as two raylets on this one: the one that trains is lost, the job ends right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.jobs.conftest import ROOT, STEPS, artifacts, checkpoints, free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with one CPU and two nodes with two, so that a member that wants two trains on one of the nodes."""
    home = tempfile.mkdtemp(prefix="bn-")
    head = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": free_ports(1)[0], "temp_dir": f"{home}/ray"}
    made = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": 150 << 20})
    try:
        yield made
    finally:
        made.shutdown()
        shutil.rmtree(home, ignore_errors=True)


def trains(node: Any) -> bool:
    """Whether a node's raylet has a training worker among its processes."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any("RayTrainWorker" in " ".join(child.cmdline()) for child in raylet.children(recursive=True))


def wait_for_training_node(nodes: list[Any], store: Path, job: subprocess.Popen[str]) -> Any:
    """The node that trains, once a checkpoint is in the store."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()[0]
        if len(checkpoints(store)) > 1:
            (found,) = [node for node in nodes if trains(node)]
            return found
        time.sleep(0.05)
    raise AssertionError("no checkpoint in time")


def test_the_job_ends_right_when_the_node_that_trains_is_lost(cluster: Cluster, tiny_job: Path, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=150 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    overrides = [
        f"store={tmp_path}",
        f"cluster.address={cluster.address}",
        "training.resources.cpus_per_worker=2",
        "bags.ratios=[1.0]",
        "evaluation.in_domain=[]",
        "evaluation.out_of_domain=[]",
    ]
    command = [sys.executable, "jobs/boom.py", str(tiny_job), *overrides]
    job = subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        cluster.remove_node(wait_for_training_node(nodes, tmp_path, job), allow_graceful=False)
        output, _ = job.communicate(timeout=300)
    finally:
        job.kill()
    assert job.returncode == 0, output
    assert "The merged model: " in output
    (member,) = artifacts(tmp_path, "member")
    assert member["figures"]["steps"] == STEPS
    assert 0 < member["figures"]["resumed_at"] < STEPS, "continued from a checkpoint on the node that was left"
