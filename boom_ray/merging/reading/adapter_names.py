"""Which tensor of the base an entry of an adapter's file belongs to, and what it does to it.

peft names entries after the modules of the model that was trained, below ``base_model.model.``; that model may have
been the base with one more level around it (a language model around the encoder), or one less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from boom_ray.errors import MergeError
from boom_ray.merging.reading.adapter_settings import AdapterSettings

if TYPE_CHECKING:
    from boom_ray.merging.reading.checkpoint import TensorInfo

PREFIX = "base_model.model."
LOW_RANK = re.compile(r"(?P<module>.+)\.(?P<part>lora(_embedding)?_[AB])(\.default)?(?P<end>\.\w+)?")
WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")
"""Levels that peft puts around a module it has trained; what is below them replaces the base's tensor."""
UNUSED = ".original_module."
"""peft's copy of what was there before training."""
MOST_LEVELS = 3


@dataclass(frozen=True)
class Patch:
    """What an adapter does to one tensor.

    Attributes:
        whole: the tensor that replaces the base's.
        low_rank: A (r, inputs) and B (outputs, r), whose product is added.
        transposed: whether the tensor is stored as (inputs, outputs), so that (B·A)ᵀ is added.
        vector: what is added to a bias.
        scale: factor of what is added.
    """

    whole: TensorInfo | None = None
    low_rank: tuple[TensorInfo, TensorInfo] | None = None
    transposed: bool = False
    vector: TensorInfo | None = None
    scale: float = 1.0

    @property
    def adds(self) -> bool:
        """Whether something is computed, and not only another tensor read."""
        return self.low_rank is not None or self.vector is not None

    def sources(self) -> Iterator[TensorInfo]:
        """The adapter's tensors."""
        yield from (source for source in (self.whole, self.vector, *(self.low_rank or ())) if source is not None)


class Entry(NamedTuple):
    """One entry of the adapter's file: the module and tensor it is about, its part in it, and where it is."""

    module: str
    target: str
    part: str
    info: TensorInfo


class _Plan(NamedTuple):
    """What errors and shapes need to know."""

    base: Mapping[str, TensorInfo]
    settings: AdapterSettings
    where: str
    base_folder: Path


def plan_patches(
    entries: Mapping[str, TensorInfo],
    base: Mapping[str, TensorInfo],
    settings: AdapterSettings,
    where: str,
    base_folder: Path,
) -> dict[str, Patch]:
    """What an adapter does to the base's tensors, by their keys.

    Args:
        entries: the adapter's tensors by name.
        base: the tensors of the base's transformer by name.
        settings: ranks and scales.
        where: member and file, for errors.
        base_folder: for errors.

    Raises:
        MergeError: an entry that belongs to no tensor of the base, has no counterpart, or has another shape.
    """
    parsed = [entry for name, info in sorted(entries.items()) for entry in _parse(name, info, where)]
    if not parsed:
        raise MergeError(f"{where} holds no trained tensors.")
    plan = _Plan(base, settings, where, base_folder)
    names = _names(sorted({entry.target for entry in parsed}), plan)
    grouped: dict[str, dict[str, Entry]] = {}
    for entry in parsed:
        group = grouped.setdefault(names[entry.target], {})
        twice = group.get(entry.part)
        # with bias="all" peft saves the biases of modules_to_save under both names; they are the same
        if twice is not None and "modules_to_save" not in entry.info.name:
            raise MergeError(f"{where} has both {twice.info.name} and {entry.info.name}, which are about one tensor.")
        group[entry.part] = entry
    return {base[name].key: _patch(base[name], group, plan) for name, group in grouped.items()}


def _parse(name: str, info: TensorInfo, where: str) -> Iterator[Entry]:
    inner = name.removeprefix(PREFIX)
    if UNUSED in inner:
        return
    found = LOW_RANK.fullmatch(inner)
    if found is not None and found["end"] in (None, ".weight"):
        yield Entry(found["module"], f"{found['module']}.weight", found["part"][-1], info)
    elif found is not None and found["part"] == "lora_B" and found["end"] == ".bias":
        yield Entry(found["module"], f"{found['module']}.bias", "vector", info)
    elif "lora_" in inner or ".token_adapter." in inner:
        kind = "DoRA" if "magnitude" in inner else "an adapter that is more than the product of two matrices"
        raise MergeError(
            f"{where} has tensor {name}, which belongs to {kind}. Fold it into its base with peft (merge_and_unload), "
            f"save that as a complete model and merge it."
        )
    else:
        target = WRAPPED.sub("", inner)
        yield Entry(target.rpartition(".")[0], target, "whole", info)


def _names(targets: list[str], plan: _Plan) -> dict[str, str]:
    """The base's name of every tensor that the adapter is about: the same levels dropped or added for all of them."""
    prefixes = ["", *sorted({name.split(".", 1)[0] + "." for name in plan.base if "." in name})]
    best: dict[str, str] = {}
    for dropped in range(MOST_LEVELS + 1):
        if len({tuple(target.split(".")[:dropped]) for target in targets}) > 1:
            break
        for prefix in prefixes:
            tried = {target: prefix + ".".join(target.split(".")[dropped:]) for target in targets}
            found = {target: name for target, name in tried.items() if name in plan.base}
            if len(found) == len(targets):
                return found
            best = max(best, found, key=len)
    lost = next(target for target in targets if target not in best)
    raise MergeError(
        f"{plan.where} is about tensor {lost}, which the base {plan.base_folder} does not have. Give the base that the "
        f"adapter was trained on; an adapter on a language-model head has no place in an embedding model."
    )


def _patch(info: TensorInfo, group: Mapping[str, Entry], plan: _Plan) -> Patch:
    patch = Patch()
    any_entry = next(iter(group.values()))
    if not info.dtype.is_floating_point:
        raise MergeError(f"{plan.where} changes {info.name}, which is {info.dtype} in the base {plan.base_folder}.")
    if "whole" in group:
        _check_shape(group["whole"].info, info.shape, info, plan)
        patch = replace(patch, whole=group["whole"].info)
    if "vector" in group:
        _check_shape(group["vector"].info, info.shape, info, plan)
        patch = replace(patch, vector=group["vector"].info, scale=plan.settings.scale(any_entry.module))
    if "A" in group or "B" in group:
        patch = _with_product(patch, info, group, plan)
    return patch


def _with_product(patch: Patch, info: TensorInfo, group: Mapping[str, Entry], plan: _Plan) -> Patch:
    lone = next((entry for part, entry in group.items() if part in "AB"), None)
    assert lone is not None
    if not ("A" in group and "B" in group):
        raise MergeError(f"{plan.where} has tensor {lone.info.name} without its counterpart. Save the adapter again.")
    a, b = group["A"].info, group["B"].info
    if len(info.shape) != 2:
        raise MergeError(f"{plan.where}: {a.name} adapts a tensor of shape {list(info.shape)}; only matrices can be.")
    rank = plan.settings.rank_of(lone.module)
    outputs, inputs = info.shape
    swapped = "lora_embedding" in a.name or (
        plan.settings.fan_in_fan_out and (a.shape, b.shape) == ((rank, outputs), (inputs, rank))
    )
    if swapped:
        outputs, inputs = inputs, outputs
    _check_shape(a, (rank, inputs), info, plan)
    _check_shape(b, (outputs, rank), info, plan)
    return replace(patch, low_rank=(a, b), transposed=swapped, scale=plan.settings.scale(lone.module))


def _check_shape(found: TensorInfo, wanted: tuple[int, ...], info: TensorInfo, plan: _Plan) -> None:
    if found.shape != wanted or not found.dtype.is_floating_point:
        raise MergeError(
            f"{plan.where}: tensor {found.name} is {found.dtype} {list(found.shape)}; for {info.name} "
            f"{list(info.shape)} of the base {plan.base_folder} it must be {list(wanted)}. The adapter belongs to "
            f"another base, or its tokenizer has other tokens."
        )
