"""Whether models can be merged: the same tensors and the same way from a text to a vector, or the first difference."""

from __future__ import annotations

from collections.abc import Sequence

from boom_ray.errors import MergeError
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.reading.facts import difference, named_facts, short
from boom_ray.merging.reading.tied import EMBEDDINGS, check_aliases, ends_with


def check_members(members: Sequence[Checkpoint], output_dtype: str) -> None:
    """Check that all members agree with the first.

    Raises:
        MergeError: they differ in tensor names, shapes or types, vocabulary, architecture, modules, pooling, prompts,
            length or tokenizer; the text names the first difference. Or a tensor that a member stores twice (tied
            embeddings) has two values.
    """
    first = members[0]
    expected = dict(named_facts(first)) if len(members) > 1 else {}
    for other in members[1:]:
        _check_completeness(first, other)
        _check_tensors(first, other, output_dtype)
        _check_facts(first, other, expected)
    for member in members:
        check_aliases(member)


def align_base(base: Checkpoint, member: Checkpoint) -> dict[str, TensorInfo]:
    """The base's tensor for every floating tensor of a member, by the member's key.

    The base may be a plain transformers folder, may have tensors that the members do not have (a language-model head),
    and may have its names under one prefix (``model.`` or ``bert.``).

    Raises:
        MergeError: a tensor is missing or has another shape.
    """
    wanted = {key: info for key, info in member.tensors.items() if info.dtype.is_floating_point}
    inner = [info.name for info in wanted.values() if info.module == member.transformer]
    prefix = _prefix(base, inner)
    found = {}
    for key, info in wanted.items():
        name = prefix + info.name if info.module == member.transformer else info.name
        module = base.transformer if info.module == member.transformer else info.module
        place = base.tensors.get(f"{module}/{name}" if module else name)
        if place is None:
            raise MergeError(
                f"The base {base.folder} has no tensor {key}, which member {member.label} has. Merge with the base "
                f"that the members were trained from, or a method without base (merge.base=none)."
            )
        _check_shape(base.label, place, member.label, info)
        found[key] = place
    return found


def _prefix(base: Checkpoint, names: Sequence[str]) -> str:
    """The prefix under which the base has all these names; empty when there is none."""
    have = {info.name for info in base.tensors.values() if info.module == base.transformer}
    candidates = ["", *sorted({name.split(".", 1)[0] + "." for name in have if "." in name})]
    return next((prefix for prefix in candidates if all(prefix + name in have for name in names)), "")


def _check_tensors(first: Checkpoint, other: Checkpoint, output_dtype: str) -> None:
    for have, lack in ((first, other), (other, first)):
        missing = next((key for key in have.tensors if key not in lack.tensors), None)
        if missing is not None:
            raise MergeError(
                f"Member {lack.label} has no tensor {missing}, which {have.label} has: they are not fine-tunes of one "
                f"model, or one was saved with another head or a tied weight."
            )
    for key, info in first.tensors.items():
        found = other.tensors[key]
        _check_shape(first.label, info, other.label, found)
        mixed = info.dtype != found.dtype
        floating = info.dtype.is_floating_point and found.dtype.is_floating_point
        if mixed and not (floating and output_dtype != "members"):
            raise MergeError(
                f"Tensor {key} is {info.dtype} in {first.label} and {found.dtype} in {other.label}. "
                f"Say which type the merged model gets, e.g. merge.output_dtype=float32."
                if floating
                else f"Tensor {key} is {info.dtype} in {first.label} and {found.dtype} in {other.label}."
            )


def _check_shape(label: str, info: TensorInfo, other_label: str, other: TensorInfo) -> None:
    if info.shape == other.shape:
        return
    if info.shape[1:] == other.shape[1:] and any(ends_with(other.name, ending) for ending in EMBEDDINGS):
        raise MergeError(
            f"The vocabularies differ: {other.key} has {info.shape[0]} rows in {label} and {other.shape[0]} in "
            f"{other_label}. One of the two had tokens added or its embeddings padded; train both with one tokenizer, "
            f"or bring them to one size with resize_token_embeddings."
        )
    raise MergeError(
        f"Tensor {other.key} has shape {list(info.shape)} in {label} and {list(other.shape)} in {other_label}; "
        f"only models of one size and one vocabulary can be merged."
    )


def _check_completeness(first: Checkpoint, other: Checkpoint) -> None:
    """A plain folder may be read as the complete ones are, but nothing in it says so."""
    plain, full = (first, other) if first.find("modules.json") is None else (other, first)
    if plain.find("modules.json") is not None or full.find("modules.json") is None:
        return
    raise MergeError(
        f"Member {plain.label} ({plain.package_folder}) is a plain transformers folder (it has no modules.json), "
        f"and {full.label} is a complete sentence-transformers folder. If both were trained with one pooling, copy "
        f"modules.json and the modules without weights (e.g. 1_Pooling) from {full.package_folder} into it."
    )


def _check_facts(first: Checkpoint, other: Checkpoint, expected: dict[str, object]) -> None:
    found = dict(named_facts(other))
    for place in [*expected, *sorted(found.keys() - expected.keys())]:
        differs = difference(place, expected.get(place), found.get(place))
        if differs is None:
            continue
        key, one, two = differs
        raise MergeError(
            f"Members {first.label} and {other.label} differ in {place}{f', {key}' if key else ''}: {short(one)} and "
            f"{short(two)}. Only models that turn a text into a vector in the same way can be merged."
        )
