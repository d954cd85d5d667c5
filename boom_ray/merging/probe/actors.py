"""The Ray Data pass over the shards of a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from boom_ray import errors
from boom_ray.errors import BoomError, MergeError
from boom_ray.merging.probe.gather import FISHER, Gatherer, GatherJob, Resources, ShardResult
from boom_ray.merging.probe.staging import Staging
from boom_ray.runtime import cause, nodes_resources, room
from boom_ray.store import Store

PROCESS_GB = 1.0
"""Memory of an actor beside the tensors: Python, torch, transformers, a micro-batch (RAY.md section 1); GiB."""


class ShardActor:
    """One `Gatherer`; the member is loaded with the first shard.

    Errors that a user can act on come back as rows: Ray Data would wrap them in tracebacks, and restart an actor whose
    constructor fails.
    """

    def __init__(self, *arguments: Any) -> None:
        """Remember what the gatherer needs."""
        self._arguments = arguments
        self._gatherer: Gatherer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Rows ``shard`` to rows ``shard``, ``count``, ``loss``, ``error``, ``kind``."""
        number = int(batch["shard"][0])
        try:
            if self._gatherer is None:
                self._gatherer = Gatherer(*self._arguments)
            result = self._gatherer.shard(number)
        except BoomError as error:
            return _row(number, 0, None, str(error), type(error).__name__)
        return _row(number, result.count, result.loss, "", "")


def _row(shard: int, count: int, loss: float | None, error: str, kind: str) -> dict[str, list[Any]]:
    value = math.nan if loss is None else loss
    return {"shard": [shard], "count": [count], "loss": [value], "error": [error], "kind": [kind]}


def run_shards(
    store: Store, job: GatherJob, staging: Staging, shards: int, resources: Resources | None = None
) -> Iterator[ShardResult]:
    """Compute all shards on actors; results come as they are done.

    Raises:
        BoomError: what stopped a shard, or a cluster without room for one actor.
    """
    import ray.data

    wanted = resources or Resources()
    count = actor_count(store, job, shards, wanted)
    dataset = ray.data.from_items([{"shard": number} for number in range(shards)], override_num_blocks=shards)
    done = dataset.map_batches(
        ShardActor,
        fn_constructor_args=(store, job, staging, shards, wanted.gpus > 0),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
        num_gpus=wanted.gpus or None,
    )
    try:
        for row in done.iter_rows():
            if row["error"]:
                raise _known(str(row["kind"]), str(row["error"]))
            loss = float(row["loss"])
            yield ShardResult(int(row["shard"]), int(row["count"]), None if math.isnan(loss) else loss)
    except ray.exceptions.RayError as error:
        raise cause(error) from error


def _known(kind: str, text: str) -> BoomError:
    found: BoomError = getattr(errors, kind, MergeError)(text)
    return found


def actor_count(store: Store, job: GatherJob, shards: int, resources: Resources) -> int:
    """How many actors: as many as there are shards and as fit; memory is an estimate, so one is always tried.

    Raises:
        MergeError: no node has the GPU that an actor asks for.
    """
    nodes = nodes_resources(wait_s=10)
    slots = room(nodes, 1, resources.gpus)
    if slots == 0:
        raise MergeError(
            f"No node of the cluster has 1 CPU and {resources.gpus:g} GPUs, which an actor that looks at members with "
            f"data asks for. Add nodes or ask for fewer GPUs."
        )
    limit = min(shards, slots, resources.actors or shards)
    if resources.gpus:
        return limit
    return max(1, min(limit, int(sum(node["memory_gb"] for node in nodes) / memory_gb(store, job))))


def memory_gb(store: Store, job: GatherJob) -> float:
    """Memory of one actor, estimated from the member's tensors; GiB."""
    with job.source.opened(store) as checkpoint:
        infos = [info for info in checkpoint.tensors.values() if info.dtype.is_floating_point]
    weights = sum(info.numel for info in infos)
    largest = max((max(info.shape, default=1) for info in infos), default=1)
    squares = sum(info.shape[1] ** 2 for info in infos if len(info.shape) == 2 and info.shape[0] < largest)
    held = 3 * weights if job.kind == FISHER else weights + squares
    return PROCESS_GB + 4 * held / 2**30
