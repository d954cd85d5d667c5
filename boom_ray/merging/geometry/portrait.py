"""How the members of a merge lie to one another: inner products and signs of all tensors, gathered in one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.geometry.signs import Signs, count_signs, find_signs, save_signs
from boom_ray.merging.geometry.statistics import find_geometry, save_geometry
from boom_ray.merging.groups import on_cluster
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.stream import Known, Opened, TensorMerger
from boom_ray.merging.tensors.gram import basis_gram, total
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Pool, Strip
from boom_ray.store import Store


@dataclass(frozen=True)
class Portrait:
    """What the geometry report is made from.

    Attributes:
        members: names, in the order of all matrices.
        sizes: key of every floating tensor to its number of elements.
        grams: key to its Gram matrix, see `boom_ray.merging.stream.Known`.
        signs: key to its counts; empty without a base.
        about_base: whether vectors are differences from the base.
    """

    members: tuple[str, ...]
    sizes: Mapping[str, int]
    grams: Mapping[str, F64]
    signs: Mapping[str, Signs]
    about_base: bool

    def space(self, key: str) -> Space:
        """Inner products of a tensor's vectors: differences from the base, or whole weights without one."""
        gram = self.grams[key]
        return Space.of_differences(gram, whole=False) if self.about_base else Space.of_first(gram)

    @cached_property
    def total(self) -> F64:
        """Gram matrix of all tensors together."""
        added: F64 = np.add.reduce([self.grams[key] for key in sorted(self.grams)])
        return added


def portrait(store: Store, inputs: MergeInputs, config: MergeConfig, report: Report = silent) -> Portrait:
    """Gather what is not known yet, in a Ray task, and keep it.

    Args:
        store: where it is kept, by the members' and the base's fingerprints.
        inputs: members, and the base when there is one.
        config: threads and memory; the method does not matter.
        report: told the bytes that were looked at.

    Raises:
        MergeError: members that do not fit together or hold NaN.
    """
    job = portrait_job(store, inputs, config)
    found = find_portrait(job)
    if found is None:
        with job.opened() as opened:
            nbytes = sum(info.nbytes for one in opened.models for info in one.tensors.values())
        found = on_cluster(job, gather_portrait, report, nbytes)
    return found


def portrait_job(store: Store, inputs: MergeInputs, config: MergeConfig) -> MergeJob:
    """The job whose vectors the portrait is about: differences from the base if there is one, else whole weights."""
    method = "task_arithmetic" if inputs.base else "linear"
    plain = MergeConfig(method=method, merge_dtype=config.merge_dtype, chunk_mb=config.chunk_mb, cpus=config.cpus)
    return MergeJob(store, dataclasses.replace(inputs, fisher=(), activations=()), plain)


def find_portrait(job: MergeJob) -> Portrait | None:
    """The portrait from what the store has; None when something is missing."""
    refs = job.inputs
    known = find_geometry(job)
    signs = find_signs(job) if refs.base else {}
    if not known.grams or (refs.base and not signs):
        return None
    with job.opened(check=False) as opened:
        return _portrait(job, opened, known.grams, signs)


def gather_portrait(job: MergeJob, report: Report = silent) -> Portrait:
    """Look at every tensor once, in this process; see `portrait`.

    Raises:
        MergeError: a member holds NaN or infinity, or there is nothing to look at.
    """
    grams: dict[str, F64] = {}
    signs: dict[str, Signs] = {}
    refs = job.inputs
    with job.opened() as opened, Pool(job.threads) as pool:
        merger = TensorMerger(opened, job.recipe, pool, job.chunk_bytes, Known())
        nbytes, done = sum(info.nbytes for info in opened.floating()), 0
        size = len(refs.members) + (opened.base is not None)
        for vectors in merger.all_vectors():
            parts = vectors.map(_look if opened.base else _look_at_weights)
            grams[vectors.name] = total([gram for gram, _ in parts], size)
            signs[vectors.name] = sum((one for _, one in parts), Signs.none(len(refs.members)))
            done += opened.members[0].tensors[vectors.name].nbytes
            report(Event("merge", "geometry", done, nbytes))
        if not grams:
            raise MergeError(f"{opened.members[0].label} has no floating tensor; there is nothing to look at.")
        save_geometry(job, grams)
        if refs.base:
            save_signs(job, signs)
        return _portrait(job, opened, grams, signs if refs.base else {})


def _look(strip: Strip) -> tuple[F64, Signs]:
    return basis_gram(strip), count_signs(strip)


def _look_at_weights(strip: Strip) -> tuple[F64, Signs]:
    return basis_gram(strip), Signs.none(len(strip.rows))


def _portrait(job: MergeJob, opened: Opened, grams: Mapping[str, F64], signs: Mapping[str, Signs]) -> Portrait:
    names = tuple(member.name for member in job.inputs.members)
    sizes = {info.key: info.numel for info in opened.floating()}
    return Portrait(names, sizes, grams, signs, job.inputs.base is not None)
