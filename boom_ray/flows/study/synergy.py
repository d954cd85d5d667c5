"""The stage that finds which datasets help each other: D(D+1)/2 tiny trainings in few Ray tasks, kept in the store.

A Ray Train run of its own would cost each of them many times what it takes, so a task does one after another in one
process (`boom_ray.flows.study.pairs`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import ray
import torch

import boom_ray.runtime  # noqa: F401  (sets Ray's environment before Ray is imported)
from boom_ray.config import ClusterArmConfig, StudyConfig
from boom_ray.events import Event, Report, silent
from boom_ray.flows.members import Foundation, plan_members
from boom_ray.flows.study.pairs import Bench, PairsJob
from boom_ray.flows.study.plan import arm_config, whole
from boom_ray.flows.workspace import Workspace
from boom_ray.runtime import cause, nodes_resources, room
from boom_ray.store import Artifact, Draft, Store
from boom_ray.studies.synergy import Clustering, cluster, synergy

KIND = "synergy"
VERSION = 1
"""Raise it when the same spec gives another content."""
ROUNDS = 4
"""Tasks per place where one fits: enough that the last ones end together, few enough to load models rarely."""
UNIT = "one dataset and pairs"
Pair = tuple[str, ...]
"""One dataset or two."""


@dataclass(frozen=True)
class Search:
    """Clusters, and what it took to find them.

    Attributes:
        clustering: what was found.
        key: of the artifact with the losses; arms that look at the same ones have the same.
        examples: seen in all trainings.
        seconds: that they took, one after the other.
    """

    clustering: Clustering
    key: str
    examples: int
    seconds: float


def find_clusters(space: Workspace, foundation: Foundation, config: StudyConfig) -> dict[str, Search]:
    """Name of every arm whose members are clusters to its clusters.

    They are found once for all seeds, with the study's own: they belong to the data, as the split into task types does.

    Raises:
        DataError: a dataset has fewer examples than a batch.
    """
    found = {}
    for arm in config.study.arms:
        if arm.members != "cluster":
            continue
        plain = arm.model_copy(update={"members": "bags"})
        (planned,) = plan_members(space, foundation, [whole(arm_config(config, plain, config.seed))])
        (member,) = planned.jobs.values()
        artifact = measure(space.store, PairsJob(member, arm.clusters.steps, arm.clusters.examples), space)
        steps = len(artifact.figures["datasets"]) ** 2 * arm.clusters.steps  # D alone, D(D-1)/2 pairs of twice as many
        found[arm.name] = Search(
            clustering=clustering(artifact, arm.clusters),
            key=artifact.key,
            examples=steps * member.training.batch_size,
            seconds=float(artifact.figures["seconds"]),
        )
    return found


def clustering(artifact: Artifact, settings: ClusterArmConfig) -> Clustering:
    """The clusters that follow from measured losses."""
    figures = artifact.figures
    matrix = synergy(figures["separate"], figures["joint"])
    return cluster(figures["datasets"], matrix, settings.count, settings.linkage)


def measure(store: Store, job: PairsJob, report: Report = silent) -> Artifact:
    """Train on every dataset and every pair of them, and measure losses; what exists is returned at once.

    Args:
        store: where bag, corpus and base are and the losses go.
        job: what is measured.
        report: told of finished trainings.

    Returns:
        An artifact of kind ``synergy`` without files. Figures: ``datasets``, ``separate`` (loss of each after training
        on it alone), ``joint`` (row i: loss of dataset i after training on it and on each), ``measured_on`` and
        ``trained_on`` (examples of each), ``seconds`` (of all trainings, one after the other).
    """

    def build(draft: Draft) -> None:
        draft.figures |= _measure_all(store, job, report)

    return store.materialize(KIND, job.spec(), job.member.inputs(), build, VERSION)


def _measure_all(store: Store, job: PairsJob, report: Report) -> dict[str, object]:
    names = sorted(job.member.parts)
    trainings: list[Pair] = [*itertools.combinations(names, 2), *((name,) for name in names)]
    shares = _spread(store, job, trainings, report)
    losses = {pair: found for share in shares for pair, found in share.losses.items()}
    separate = [losses[name,][name] for name in names]
    joint = np.diag(separate)
    for pair in itertools.combinations(names, 2):
        for own, other in (pair, pair[::-1]):
            joint[names.index(own), names.index(other)] = losses[pair][own]
    return {
        "datasets": names,
        "separate": separate,
        "joint": joint.tolist(),
        "measured_on": shares[0].measured_on,
        "trained_on": shares[0].trained_on,
        "seconds": round(sum(share.seconds for share in shares), 3),
    }


@dataclass(frozen=True)
class _Share:
    """What one task did.

    Attributes:
        losses: datasets trained on to the loss on each.
        measured_on: dataset to the examples that losses are measured on.
        trained_on: dataset to the examples that may be trained on; all of them where there are too few to part.
        seconds: how long it took.
    """

    losses: Mapping[Pair, Mapping[str, float]]
    measured_on: Mapping[str, int]
    trained_on: Mapping[str, int]
    seconds: float


def _spread(store: Store, job: PairsJob, trainings: Sequence[Pair], report: Report) -> list[_Share]:
    """Share out all trainings among tasks."""
    resources = job.member.training.resources
    cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    places = max(1, room(nodes_resources(wait_s=10), cpus, gpus))
    count = min(len(trainings), ROUNDS * places)
    task = ray.remote(_work).options(num_cpus=cpus, num_gpus=gpus, name="synergy", max_retries=3)
    parts = [trainings[number::count] for number in range(count)]
    waiting = [task.remote(store, job, part, max(1, int(cpus)), gpus > 0) for part in parts]
    shares: list[_Share] = []
    report(Event(KIND, UNIT, 0, len(trainings)))
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            shares += ray.get(done)
        except ray.exceptions.RayError as error:
            raise cause(error) from error
        report(Event(KIND, UNIT, sum(len(share.losses) for share in shares), len(trainings)))
    return shares


def _work(store: Store, job: PairsJob, trainings: Sequence[Pair], threads: int, gpu: bool) -> _Share:
    torch.set_num_threads(threads)
    if not gpu:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
    started = time.monotonic()
    bench = Bench(store, job, gpu)
    losses = {pair: bench.losses(pair) for pair in trainings}
    measured_on = {name: len(one) for name, (one, _) in bench.divisions.items()}
    trained_on = {name: len(other) for name, (_, other) in bench.divisions.items()}
    return _Share(losses, measured_on, trained_on, time.monotonic() - started)
