"""The stage: members and a recipe in, the merged model as an artifact out; in a Ray task or right here."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from boom_ray.config import MergeConfig
from boom_ray.errors import BoomError
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.merging.agreement import check_members
from boom_ray.merging.checkpoint import Checkpoint, open_checkpoint
from boom_ray.merging.package import Package, describe, write_dtype
from boom_ray.merging.recipe import MemberRef, Recipe, resolve
from boom_ray.merging.stream import Merged, TensorMerger, output_type, write_merged
from boom_ray.model.folder import weights_fingerprint
from boom_ray.runtime import cause, event_queue
from boom_ray.store import Artifact, Draft, Store, artifact_key

VERSION = 1
"""Format of the stage's output; raise it when the same recipe and members give other bytes."""
MODEL = "model"
"""Folder of the model inside the artifacts of kinds ``merge`` and ``release``."""
LONG_BYTES = 1 << 30
"""Merges that read less take seconds and report only their end: a queue for events takes longer to start."""


def merge(
    store: Store, members: Sequence[MemberRef], base: MemberRef, config: MergeConfig, report: Report = silent
) -> Artifact:
    """Merge members in a Ray task; a merge that exists is returned at once.

    Args:
        store: where the result goes; every machine of the cluster must see it and the members' folders.
        members: in the order of ``config.weights``; the first gives pooling, prompts and tokenizer.
        base: the model that members were trained from; read only by methods that use it.
        config: the recipe.
        report: told the bytes written.

    Returns:
        An artifact of kind ``merge``; the model is its folder ``model``, its fingerprint that of the merged weights.

    Raises:
        MergeError: members that do not fit together or hold NaN; damaged files.
        ModelError: a folder that is no model.
        StoreError: the store cannot be written.
    """
    recipe = resolve(config, members)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(store.resolve(member.path), member.name)) for member in members]
        inputs = _inputs(recipe, members, base, describe(opened[0]))
        size = sum(info.nbytes for one in opened for info in one.tensors.values())
    found = store.get("merge", artifact_key("merge", recipe.spec(), inputs, VERSION))
    if found is None:
        with _queue(report, size) as queue:
            task = ray.remote(_merge_task).options(num_cpus=1, name="merge")
            found = _result(task.remote(store, list(members), base, config, queue))
        report(_finished(found, ""))
    else:
        report(_finished(found, "cached"))
    return found


def _queue(report: Report, size: int) -> contextlib.AbstractContextManager[Any]:
    if report is silent or size < LONG_BYTES:
        return contextlib.nullcontext()
    return event_queue(report)


def _result(reference: Any) -> Artifact:
    try:
        artifact: Artifact = ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = cause(error)
        if isinstance(problem, BoomError):
            raise problem from error
        raise
    return artifact


def _merge_task(
    store: Store, members: Sequence[MemberRef], base: MemberRef, config: MergeConfig, queue: Any
) -> Artifact:
    return merge_here(store, members, base, config, silent if queue is None else queue.put)


def _finished(artifact: Artifact, note: str) -> Event:
    size = float(artifact.figures["bytes_written"])
    return Event("merge", "merged", size, size, note=note)


def merge_here(
    store: Store, members: Sequence[MemberRef], base: MemberRef, config: MergeConfig, report: Report = silent
) -> Artifact:
    """Merge members in this process; see `merge`."""
    recipe = resolve(config, members)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(store.resolve(member.path), member.name)) for member in members]
        check_members(opened, recipe.output_dtype)
        package = describe(opened[0])
        opened_base = (
            stack.enter_context(open_checkpoint(store.resolve(base.path), base.name)) if recipe.uses_base else None
        )

        def build(draft: Draft) -> None:
            started = time.perf_counter()
            merger = TensorMerger(opened, opened_base, recipe, config.chunk_mb << 20)
            target = draft.path / MODEL
            written = write_product(merger, opened[0], package, recipe.output_dtype, target, report)
            draft.fingerprint = weights_fingerprint(target)
            draft.figures = _figures(written, members, recipe, package) | {
                "seconds": round(time.perf_counter() - started, 3)
            }

        return store.materialize("merge", recipe.spec(), _inputs(recipe, members, base, package), build, VERSION)


def write_product(
    merger: TensorMerger, first: Checkpoint, package: Package, output_dtype: str, target: Path, report: Report
) -> Merged:
    """Write the complete model folder: merged weights, and everything else from the first member."""
    target.mkdir(parents=True, exist_ok=True)
    package.copy(target)
    written = write_merged(merger, first, output_dtype, target, report)
    types: Counter[torch.dtype] = Counter()
    for info in first.tensors.values():
        if info.module == first.transformer and info.dtype.is_floating_point:
            types[output_type(info, output_dtype)] += info.numel
    if types:
        write_dtype(target / first.transformer, types.most_common(1)[0][0])
    return written


def _inputs(recipe: Recipe, members: Sequence[MemberRef], base: MemberRef, package: Package) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "members": [member.fingerprint for member in members],
        "package": package.fingerprint(),
    }
    return inputs | ({"base": base.fingerprint} if recipe.uses_base else {})


def _figures(written: Merged, members: Sequence[MemberRef], recipe: Recipe, package: Package) -> dict[str, Any]:
    columns = list(zip(*written.coefficients.values(), strict=True)) or [(0.0,)] * len(members)
    return {
        "tensors": written.tensors,
        "parameters": written.parameters,
        "bytes_read": written.bytes_read,
        "bytes_written": written.bytes_written,
        "weights": {member.name: weight for member, weight in zip(members, recipe.weights, strict=True)},
        "coefficients": {
            member.name: {"least": min(column), "most": max(column)}
            for member, column in zip(members, columns, strict=True)
        },
        "left_out": list(package.left_out),
    }


def release(store: Store, merged: Artifact, card: str) -> Artifact:
    """The merged model with its card as README.md, which needs the scores and so comes after the evaluation.

    Weights are hard-linked where the file system can; nothing is merged again.

    Args:
        store: where the result goes.
        merged: an artifact of kind ``merge``.
        card: text of the model card, see `boom_ray.merging.card.model_card`.

    Returns:
        An artifact of kind ``release`` with the merged model's fingerprint and figures.
    """

    def build(draft: Draft) -> None:
        source = merged.local()
        for name in merged.files:
            path = draft.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(source / name, path, link=path.suffix == ".safetensors")
        (draft.path / MODEL / "README.md").write_text(card, encoding="utf-8")
        draft.figures, draft.fingerprint = merged.figures, merged.fingerprint

    return store.materialize("release", {"card": digest(card)}, {"merge": merged.key}, build, VERSION)


def _link_or_copy(source: Path, target: Path, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
