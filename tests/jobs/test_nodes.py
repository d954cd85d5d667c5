"""Machines as raylets on this one: the one that trains, or merges, is lost, and the job ends right."""

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

import pytest
import torch
from ray.cluster_utils import Cluster

from boom_ray.config import MergeConfig
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import merge_here
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from tests.jobs.conftest import ROOT, STEPS, artifacts, checkpoints
from tests.plain_model import write_plain_model
from tests.ports import free_ports
from tests.processes import descendants

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


def runs(node: Any, title: str) -> bool:
    """Whether a node's raylet has a worker with that in its title among its processes."""
    return bool(descendants(title, node.all_processes["raylet"][0].process.pid))


def wait_for_training_node(nodes: list[Any], store: Path, job: subprocess.Popen[str]) -> Any:
    """The node that trains, once a checkpoint is in the store."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()[0]
        if len(checkpoints(store)) > 1:
            (found,) = [node for node in nodes if runs(node, "RayTrainWorker")]
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


def test_a_merge_ends_right_when_a_node_that_merges_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    def noisy(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {f"w{index}": torch.randn(2000, 2000, generator=generator) for index in range(8)}

    folders = [write_plain_model(tmp_path / f"m{seed}", noisy(seed)) for seed in range(4)]
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=150 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    config = {"method": "della_ties", "shard_gb": 0.017, "distribute_gb": 0, "cpus": 2}
    overrides = [
        *(
            "conf/merge/soup.yaml",
            f"store={tmp_path}/store",
            f"cluster.address={cluster.address}",
            f"base={folders[0]}",
        ),
        f"members=[{','.join(map(str, folders[1:]))}]",
        *(f"merge.{key}={value}" for key, value in config.items()),
        "merge.geometry=false",
    ]
    job = subprocess.Popen(
        [sys.executable, "jobs/merge.py", *overrides],
        cwd=ROOT, env=dict(os.environ), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        lost, deadline = None, time.monotonic() + 180
        while lost is None:
            assert job.poll() is None, job.communicate()[0]
            assert time.monotonic() < deadline, "no merge in time"
            time.sleep(0.02)
            lost = next((node for node in nodes if runs(node, "ray::merge model-")), None)
        cluster.remove_node(lost, allow_graceful=False)
        output, _ = job.communicate(timeout=300)
    finally:
        job.kill()
    assert job.returncode == 0, output
    (made,) = artifacts(tmp_path / "store", "merge")
    refs = [MemberRef(folder.name, str(folder), weights_fingerprint(folder), 1) for folder in folders]
    here = merge_here(
        MergeJob(Store(tmp_path / "here"), MergeInputs(refs[1:], refs[0]), MergeConfig.model_validate(config))
    )
    assert made["fingerprint"] == here.fingerprint and made["files"] == here.files
