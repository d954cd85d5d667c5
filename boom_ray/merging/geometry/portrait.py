"""How the members of a merge lie to one another: inner products and signs of all tensors, gathered in one pass.

With a base the pass also keeps the inner products of whole weights, bit by bit those that a merge without a base would
compute, so that it serves merges of both kinds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
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
from boom_ray.merging.reading.agreement import align_base
from boom_ray.merging.stream import Opened
from boom_ray.merging.tensors.gram import basis_gram, total
from boom_ray.merging.tensors.sources import FileVectors, Place, arithmetic
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
    kept = {name: getattr(config, name) for name in ("merge_dtype", "output_dtype", "chunk_mb", "cpus")}
    plain = MergeConfig(method=method, **kept)
    return MergeJob(store, dataclasses.replace(inputs, fisher=(), activations=()), plain)


def _of_weights(job: MergeJob) -> MergeJob:
    """The same members in merges of whole weights."""
    return dataclasses.replace(job, config=job.config.model_copy(update={"method": "linear"}))


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
    seen: dict[str, _Look] = {}
    has_base, count = job.inputs.base is not None, len(job.inputs.members)
    with job.opened() as opened, Pool(job.threads) as pool:
        nbytes, done = sum(info.nbytes for info in opened.floating()), 0
        for vectors in _all_weights(job, opened, pool):
            parts = vectors.map(_look_about_base if has_base else _look)
            seen[vectors.name] = _Look(
                total([one.gram for one in parts], count + has_base),
                total([one.weights for one in parts], count),
                sum((one.signs for one in parts), Signs.none(count)),
            )
            done += opened.members[0].tensors[vectors.name].nbytes
            report(Event("merge", "geometry", done, nbytes, measure="bytes"))
        if not seen:
            raise MergeError(f"{opened.members[0].label} has no floating tensor; there is nothing to look at.")
        grams, signs = _keep(job, seen)
        return _portrait(job, opened, grams, signs)


@dataclass(frozen=True)
class _Look:
    """What one pass sees of a strip or a tensor.

    Attributes:
        gram: Gram matrix of the basis, see `Portrait`.
        weights: that of the members' whole weights, as `basis_gram` has it without a base.
        signs: counts, zero without a base.
    """

    gram: F64
    weights: F64
    signs: Signs


def _all_weights(job: MergeJob, opened: Opened, pool: Pool) -> Iterator[FileVectors]:
    """The whole weights of every floating tensor: the base's first, if there is one, then the members'."""
    aligned = align_base(opened.base, opened.members[0]) if opened.base else {}
    for info in opened.floating():
        places = [Place(one, one.tensors[info.key]) for one in opened.members]
        if opened.base:
            places.insert(0, Place(opened.base, aligned[info.key]))
        labels = [place.model.label for place in places]
        yield FileVectors(info.key, places, None, labels, arithmetic(places, job.recipe.merge_dtype), pool)


def _look(strip: Strip) -> _Look:
    """Look at the members' whole weights."""
    gram = basis_gram(strip)
    return _Look(gram, gram, Signs.none(len(strip.rows)))


def _look_about_base(strip: Strip) -> _Look:
    """Look at whole weights, the base's first, then at the differences from it, which take their place."""
    base, members = strip.rows[0], strip.rows[1:]
    weights = basis_gram(Strip(strip.start, members))
    differences = Strip(strip.start, members.sub_(base), base)
    return _Look(basis_gram(differences), weights, count_signs(differences))


def _keep(job: MergeJob, seen: Mapping[str, _Look]) -> tuple[dict[str, F64], dict[str, Signs]]:
    """Keep what was seen; Gram matrices and signs by key, the latter empty without a base."""
    grams = {key: one.gram for key, one in seen.items()}
    save_geometry(job, grams)
    if job.inputs.base is None:
        return grams, {}
    save_geometry(_of_weights(job), {key: one.weights for key, one in seen.items()})
    signs = {key: one.signs for key, one in seen.items()}
    save_signs(job, signs)
    return grams, signs


def _portrait(job: MergeJob, opened: Opened, grams: Mapping[str, F64], signs: Mapping[str, Signs]) -> Portrait:
    names = tuple(member.name for member in job.inputs.members)
    sizes = {info.key: info.numel for info in opened.floating()}
    return Portrait(names, sizes, grams, signs, job.inputs.base is not None)
