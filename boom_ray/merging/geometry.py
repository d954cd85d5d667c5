"""What passes over a member set found, kept in the store: no later merge of the same members looks for it again.

*geometry*: per tensor the Gram matrix of a reference and the members' differences from it, a few numbers (see
`boom_ray.merging.space`). From it every coefficient method gets its coefficients for any weights.
*magnitudes*: per tensor and member how many elements of a difference have which magnitude (see
`boom_ray.merging.magnitudes`). From it every trimming method finds its thresholds for any density.
*signs*: how many elements of two differences have the same sign, for reports (see `boom_ray.merging.signs`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.space import F64
from boom_ray.merging.stream import Known
from boom_ray.store import Artifact, Draft, Store, artifact_key

GEOMETRY, MAGNITUDES = "geometry", "magnitudes"
VERSION = 1
NUMBERS, NAMES = "numbers.safetensors", "names.json"
Arrays = Mapping[str, npt.NDArray[Any]]


def inputs(members: Sequence[MemberRef], base: MemberRef | None) -> dict[str, Any]:
    """What the figures depend on: the members in their order, and the base if differences are from it."""
    return {"members": [member.fingerprint for member in members], "base": base.fingerprint if base else None}


def save_geometry(
    store: Store, members: Sequence[MemberRef], base: MemberRef | None, grams: Mapping[str, F64]
) -> Artifact:
    """Keep Gram matrices.

    Args:
        store: where they go.
        members: in the order of the matrices.
        base: the base, when the matrices are about differences from it.
        grams: key of every floating tensor to its matrix, (M + 1, M + 1) with a base, else (M, M).
    """
    return save(store, GEOMETRY, members, base, {key: {"gram": gram} for key, gram in grams.items()})


def save_magnitudes(
    store: Store, members: Sequence[MemberRef], base: MemberRef | None, histograms: Mapping[str, Arrays]
) -> Artifact:
    """Keep histograms of all tensors, in the form of `Histograms.to_arrays`."""
    return save(store, MAGNITUDES, members, base, histograms)


def find_geometry(store: Store, members: Sequence[MemberRef], base: MemberRef | None, uses_base: bool) -> Known:
    """The inner products that are known of these members; empty when none are.

    Matrices about the base also tell everything about whole weights, so they serve both.
    """
    about = [base] if base else []
    for reference in [*about, *([] if uses_base else [None])]:
        found = find(store, GEOMETRY, members, reference)
        if found is not None:
            grams = {key: arrays["gram"] for key, arrays in load(found).items()}
            return Known(grams, about_base=reference is not None)
    return Known()


def find_magnitudes(store: Store, members: Sequence[MemberRef], base: MemberRef | None) -> dict[str, Arrays]:
    """The histograms that are known of these members' differences from the base; empty when none are."""
    found = find(store, MAGNITUDES, members, base)
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


def find(store: Store, kind: str, members: Sequence[MemberRef], base: MemberRef | None) -> Artifact | None:
    """The figures of a kind that are known of these members."""
    return store.get(kind, artifact_key(kind, {}, inputs(members, base), VERSION))


def save(
    store: Store, kind: str, members: Sequence[MemberRef], base: MemberRef | None, found: Mapping[str, Arrays]
) -> Artifact:
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
        draft.figures = {"tensors": len(names), "members": len(members)}

    return store.materialize(kind, {}, inputs(members, base), build, VERSION)
