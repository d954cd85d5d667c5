"""Whether what was gathered from data belongs to the members of a merge: the same tensors, for every one of them."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.errors import MergeError
from boom_ray.merging.reading.checkpoint import Checkpoint


def check_fisher(members: Sequence[Checkpoint], fisher: Sequence[Checkpoint]) -> None:
    """Check Fisher information: of every member, for the same tensors, in the members' shapes.

    Raises:
        MergeError: it does not fit; the text names the member and the tensor.
    """
    _check_count("Fisher information", members, fisher)
    _check_same("Fisher information", fisher)
    shapes = {key: info.shape for key, info in members[0].tensors.items()}
    for one in fisher:
        for key, info in one.tensors.items():
            if shapes.get(key) != info.shape:
                raise MergeError(
                    f"Fisher information of {one.label} has a tensor {key} of shape {list(info.shape)}, and the member "
                    f"has {f'{list(shapes[key])}' if key in shapes else 'none of that name'}: it was gathered from "
                    f"another model."
                )


def check_activations(members: Sequence[Checkpoint], activations: Sequence[Checkpoint]) -> None:
    """Check products of activations: of every member, as wide as the members' layers.

    A layer that one member's sample did not reach (an expert that no token was sent to) is averaged in all.

    Raises:
        MergeError: they do not fit; the text names the member and the tensor.
    """
    _check_count("products of activations", members, activations)
    for one in activations:
        for key, info in one.tensors.items():
            layer = members[0].tensors.get(key)
            if layer is None or info.shape != (layer.shape[-1], layer.shape[-1]):
                raise MergeError(
                    f"Products of activations of {one.label} have a tensor {key} of shape {list(info.shape)}, which "
                    f"does not fit the member's {list(layer.shape) if layer else 'tensors'}: they were gathered from "
                    f"another model."
                )


def _check_count(what: str, members: Sequence[Checkpoint], found: Sequence[Checkpoint]) -> None:
    if len(found) != len(members):
        raise MergeError(
            f"This method needs {what} of each of the {len(members)} members, and has it of {len(found)}. "
            f"jobs/merge.py and jobs/boom.py gather it from training data."
        )
    empty = next((one.label for one in found if not one.tensors), None)
    if empty is not None:
        raise MergeError(f"There is no {what} of {empty}; gather it again.")


def _check_same(what: str, found: Sequence[Checkpoint]) -> None:
    first = found[0]
    for other in found[1:]:
        missing = next(iter(sorted(first.tensors.keys() ^ other.tensors.keys())), None)
        if missing is not None:
            raise MergeError(
                f"Tensor {missing} is in the {what} of only one of {first.label} and {other.label}; gather both again."
            )
