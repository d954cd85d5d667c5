"""Whether models can be merged: the same tensors and the same way from a text to a vector, or the first difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boom_ray.errors import MergeError
from boom_ray.hashing import file_digest
from boom_ray.merging.checkpoint import Checkpoint, TensorInfo
from boom_ray.model.folder import modules, read_json, transformer_dir

UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "__version__"})
"""Keys of JSON files that say where a model comes from or how it was saved, not what it computes."""
PER_CALL = frozenset({"truncation", "padding"})
"""Keys of tokenizer.json that every call sets anew."""
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def check_members(members: Sequence[Checkpoint], output_dtype: str) -> None:
    """Check that all members agree with the first.

    Raises:
        MergeError: they differ in tensor names, shapes or types, architecture, modules, pooling, prompts or tokenizer;
            the text names the first difference.
    """
    first = members[0]
    expected = list(_facts(first.folder)) if len(members) > 1 else []
    for other in members[1:]:
        _check_tensors(first, other, output_dtype)
        _check_facts(first, other, expected)


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
    if info.shape != other.shape:
        raise MergeError(
            f"Tensor {other.key} has shape {list(info.shape)} in {label} and {list(other.shape)} in {other_label}; "
            f"only models of one size and one vocabulary can be merged."
        )


def _check_facts(first: Checkpoint, other: Checkpoint, expected: list[tuple[str, Any]]) -> None:
    found = dict(_facts(other.folder))
    wanted = dict(expected)
    for place in [*wanted, *sorted(found.keys() - wanted.keys())]:
        difference = _first_difference(wanted.get(place), found.get(place), "")
        if difference is None:
            continue
        key, left, right = difference
        raise MergeError(
            f"Members {first.label} and {other.label} differ in {place}{f', {key}' if key else ''}: {_short(left)} and "
            f"{_short(right)}. Only models that turn a text into a vector in the same way can be merged."
        )


def _facts(folder: Path) -> Iterator[tuple[str, Any]]:
    """Everything but weights that decides a vector, by file; tokenizers by their content hash."""
    yield "modules.json", [[module.kind, module.path.relative_to(folder).as_posix()] for module in modules(folder)]
    for place in [folder, *(module.path for module in modules(folder))]:
        for name in ("config.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
            if (place / name).exists():
                yield (place / name).relative_to(folder).as_posix(), read_json(place / name)
    yield from _tokenizer_facts(transformer_dir(folder))


def _tokenizer_facts(inner: Path) -> Iterator[tuple[str, Any]]:
    if (inner / "tokenizer.json").exists():
        content = {key: value for key, value in read_json(inner / "tokenizer.json").items() if key not in PER_CALL}
        yield "tokenizer.json", content
        return
    for name in VOCABULARIES:
        if (inner / name).exists():
            yield name, file_digest(inner / name)


def _first_difference(left: Any, right: Any, key: str) -> tuple[str, Any, Any] | None:
    """Dotted key and both values of the first difference of two JSON values, None when there is none."""
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return None if left == right else (key, left, right)
    for name in sorted(left.keys() | right.keys()):
        if name in UNIMPORTANT:
            continue
        found = _first_difference(left.get(name), right.get(name), f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
