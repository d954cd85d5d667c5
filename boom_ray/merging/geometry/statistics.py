"""What passes over a member set found, kept in the store: no later merge of the same members looks for it again.

*geometry*: per tensor the Gram matrix of a reference and the members' differences from it, a few numbers (see
`boom_ray.merging.tensors.space`). From it every coefficient method gets its coefficients for any weights.
*magnitudes*: per tensor and member how many elements of a difference have which magnitude (see
`boom_ray.merging.tensors.magnitudes`). From it every trimming method finds its thresholds for any density.
*signs*: how many elements of two differences have the same sign, for reports (see `boom_ray.merging.geometry.signs`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from boom_ray.merging.job import MergeJob
from boom_ray.merging.stream import Known
from boom_ray.merging.tensors.space import F64
from boom_ray.store import Artifact, Draft, artifact_key

GEOMETRY, MAGNITUDES = "geometry", "magnitudes"
VERSION = 1
NUMBERS, NAMES = "numbers.safetensors", "names.json"
Arrays = Mapping[str, npt.NDArray[Any]]


def save_geometry(job: MergeJob, grams: Mapping[str, F64]) -> Artifact:
    """Keep Gram matrices.

    Args:
        job: a merge of the members; whether it works on differences from the base says what the matrices are about.
        grams: key of every floating tensor to its matrix, (M + 1, M + 1) with a base, else (M, M).
    """
    return save(job, GEOMETRY, {key: {"gram": gram} for key, gram in grams.items()})


def save_magnitudes(job: MergeJob, histograms: Mapping[str, Arrays]) -> Artifact:
    """Keep histograms of all tensors, in the form of `Histograms.to_arrays`."""
    return save(job, MAGNITUDES, histograms)


def find_geometry(job: MergeJob) -> Known:
    """The inner products that are known of a merge's members; empty when none are.

    Those of whole weights also follow from those about the base, but only to rounding: the bytes of a merge would
    depend on what is in the store. So each kind of merge reads its own.
    """
    found = find(job, GEOMETRY)
    if found is None:
        return Known()
    return Known({key: arrays["gram"] for key, arrays in load(found).items()}, about_base=job.recipe.uses_base)


def find_magnitudes(job: MergeJob) -> dict[str, Arrays]:
    """The histograms that are known of the members' vectors; empty when none are."""
    found = find(job, MAGNITUDES)
    return {} if found is None else load(found)


def load(artifact: Artifact) -> dict[str, Arrays]:
    """Key of every tensor to its arrays."""
    folder = artifact.local()
    names = json.loads((folder / NAMES).read_text(encoding="utf-8"))
    result: dict[str, dict[str, npt.NDArray[Any]]] = {name: {} for name in names}
    for place, array in load_file(folder / NUMBERS).items():
        number, _, field = place.partition(".")
        result[names[int(number)]][field] = array
    return dict(result)


def find(job: MergeJob, kind: str) -> Artifact | None:
    """The figures of a kind that are known of a merge's members."""
    return job.store.get(kind, artifact_key(kind, *_determined_by(job), VERSION))


def save(job: MergeJob, kind: str, found: Mapping[str, Arrays]) -> Artifact:
    """Keep arrays by tensor under a kind."""
    names = sorted(found)

    def build(draft: Draft) -> None:
        arrays = {
            f"{number}.{field}": np.ascontiguousarray(array)
            for number, name in enumerate(names)
            for field, array in found[name].items()
        }
        save_file(arrays, draft.path / NUMBERS)
        (draft.path / NAMES).write_text(json.dumps(names), encoding="utf-8")
        draft.figures = {"tensors": len(names), "members": len(job.inputs.members)}

    return job.store.materialize(kind, *_determined_by(job), build, VERSION)


def _determined_by(job: MergeJob) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spec and inputs: the type of the arithmetic, the members in their order, the base if differences are from it."""
    base = job.inputs.base if job.recipe.uses_base else None
    members = [member.fingerprint for member in job.inputs.members]
    return {"arithmetic": job.recipe.merge_dtype}, {"members": members, "base": base.fingerprint if base else None}
