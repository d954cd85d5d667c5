"""The Ray task that learns weights."""

from __future__ import annotations

import contextlib
from typing import Any

from boom_ray.runtime import cause, event_queue, nodes_resources, room  # isort: skip  (sets Ray's environment before Ray is imported)

import ray
import torch

from boom_ray.errors import MergeError
from boom_ray.events import Report, silent
from boom_ray.merging.probe.members import Source
from boom_ray.merging.probe.weights import WeightsJob, learn_weights_here
from boom_ray.store import Artifact, Store


def run_task(store: Store, job: WeightsJob, report: Report, cpus: int, gpus: float) -> Artifact:
    """Learn weights on a node that has room; see `learn_weights`.

    Raises:
        MergeError: no node has.
    """
    _check_room(store, job, cpus, gpus)
    queued = contextlib.nullcontext() if report is silent else event_queue(report)
    with queued as queue:
        task = ray.remote(_work).options(num_cpus=cpus, num_gpus=gpus, name="learn weights", max_retries=3)
        try:
            found: Artifact = ray.get(task.remote(store, job, queue, cpus, gpus > 0))
        except ray.exceptions.RayError as error:
            raise cause(error) from error
    return found


def _work(store: Store, job: WeightsJob, queue: Any, cpus: int, gpu: bool) -> Artifact:
    torch.set_num_threads(cpus)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    return learn_weights_here(store, job, silent if queue is None else queue.put, gpu)


def _check_room(store: Store, job: WeightsJob, cpus: int, gpus: float) -> None:
    nodes = nodes_resources(wait_s=10)
    if room(nodes, cpus, gpus) == 0:
        raise MergeError(f"No node of the cluster has the {cpus} CPUs and {gpus:g} GPUs to learn weights with.")
    need = memory_gb(store, job)
    most = max(node["memory_gb"] for node in nodes)
    if not gpus and need > most:
        raise MergeError(
            f"Learning weights holds the model, its gradients, the base and {len(job.members)} members in memory: "
            f"{need:.1f} GiB; the largest node of the cluster has {most:.1f} GiB for Ray. Use fewer members, a larger "
            f"node, or another method."
        )


def memory_gb(store: Store, job: WeightsJob) -> float:
    """Memory of the tensors that are held; GiB."""
    with Source(job.base, None, job.model).opened(store) as checkpoint:
        numel = sum(info.numel for info in checkpoint.tensors.values() if info.dtype.is_floating_point)
    return (len(job.members) + 3) * 4 * numel / 2**30
