"""The stage: members and a recipe in, the merged model as an artifact out; in Ray tasks or right here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from boom_ray.config import MergeConfig
from boom_ray.events import Event, Report, silent
from boom_ray.hashing import digest
from boom_ray.merging.geometry.statistics import save_geometry, save_magnitudes
from boom_ray.merging.groups import on_cluster, spread
from boom_ray.merging.job import FileResult, MergeInputs, MergeJob, coefficient_ranges, merge_files
from boom_ray.merging.memory import memory_bound
from boom_ray.merging.product.package import Package, complete, describe, write_dtype
from boom_ray.merging.product.writer import write_index
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.stream import Opened, SavedFile, plan_files
from boom_ray.merging.survey import survey
from boom_ray.model.folder import hashes_fingerprint
from boom_ray.store import Artifact, Draft, Store, artifact_key

VERSION = 2
"""Format of the stage's output; raise it when the same recipe and members give other bytes."""
MODEL = "model"
"""Folder of the model inside the artifacts of kinds ``merge`` and ``release``."""


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """What a merge will do, known from the headers of the files.

    Attributes:
        recipe: method and numbers.
        files: files of the merged model.
        package: everything else of it.
        inputs: fingerprints that determine the result.
        tensors: tensors of the merged model.
        parameters: elements of those that are merged.
        bytes_in: bytes of all models that are read.
        bytes_out: bytes written.
        memory: most bytes held, see `boom_ray.merging.memory`.
    """

    recipe: Recipe
    files: tuple[SavedFile, ...]
    package: Package
    inputs: dict[str, Any]
    tensors: int
    parameters: int
    bytes_in: int
    bytes_out: int
    memory: int

    @property
    def key(self) -> str:
        """Key of the artifact."""
        return artifact_key("merge", self.recipe.spec(), self.inputs, VERSION)


def merge(store: Store, inputs: MergeInputs, config: MergeConfig, report: Report = silent) -> Artifact:
    """Merge members in Ray tasks; a merge that exists is returned at once.

    A merge that reads less than ``config.distribute_gb`` is one task; a larger one is a task per saved file, each on
    a machine that has the members' files. The result is the same bytes.

    Args:
        store: where the result goes; every machine of the cluster must see it and the members' folders.
        inputs: the models.
        config: the recipe.
        report: told the bytes written.

    Returns:
        An artifact of kind ``merge``; the model is its folder ``model``, its fingerprint that of the merged weights.

    Raises:
        MergeError: members that do not fit together or hold NaN, a recipe that does not fit them; damaged files.
        ModelError: a folder that is no model.
        StoreError: the store cannot be written.
    """
    job = MergeJob(store, inputs, config)
    with job.opened() as opened:
        plan = plan_merge(job, opened)
    found = store.get("merge", plan.key)
    if found is not None:
        report(_finished(found, "cached"))
        return found
    if is_spread(plan, config):
        job = dataclasses.replace(job, known=on_cluster(job, _known, report, plan.bytes_in))
        found = _materialize(job, plan, lambda draft: spread(job, plan.files, plan.key, draft, MODEL, report))
    else:
        found = on_cluster(job, merge_here, report, plan.bytes_in)
    report(_finished(found, ""))
    return found


def is_spread(plan: MergePlan, config: MergeConfig) -> bool:
    """Whether the merge is a task per saved file; otherwise it is one task."""
    return len(plan.files) > 1 and plan.bytes_in >= config.distribute_gb * 2**30


def merge_here(job: MergeJob, report: Report = silent) -> Artifact:
    """Merge members in this process; see `merge`."""
    with job.opened() as opened:
        plan = plan_merge(job, opened)
        found = job.store.get("merge", plan.key)
        if found is not None:
            return found
        ready = dataclasses.replace(job, known=survey(job, opened, report))

        def write(draft: Draft) -> FileResult:
            return merge_files(ready, opened, plan.files, draft.path / MODEL, report, plan.bytes_out)

        return _materialize(ready, plan, write)


def plan_merge(job: MergeJob, opened: Opened) -> MergePlan:
    """What a merge of these models will do."""
    first, recipe = opened.members[0], job.recipe
    package = describe(first)
    package.check_pooling(job.inputs.pooling)
    files = tuple(plan_files(first, recipe))
    refs = job.inputs
    inputs: dict[str, Any] = {
        "members": [member.fingerprint for member in refs.members],
        "package": package.fingerprint(),
        "pooling": refs.pooling if package.is_plain else None,
        "fisher": [ref.fingerprint for ref in refs.fisher],
        "activations": [ref.fingerprint for ref in refs.activations],
        "base": refs.base.fingerprint if refs.base and recipe.uses_base else None,
    }
    return MergePlan(
        recipe=recipe,
        files=files,
        package=package,
        inputs=inputs,
        tensors=len(first.tensors),
        parameters=sum(info.numel for info in opened.floating()),
        bytes_in=sum(info.nbytes for one in opened.models for info in one.tensors.values()),
        bytes_out=sum(file.nbytes for file in files),
        memory=memory_bound(opened, recipe, job.chunk_bytes, job.threads),
    )


def _known(job: MergeJob, report: Report) -> Any:
    with job.opened() as opened:
        return survey(job, opened, report)


def _materialize(job: MergeJob, plan: MergePlan, write: Any) -> Artifact:
    """Let ``write`` put the weights into a draft, add the rest of the model, keep what was computed on the way."""
    results: list[FileResult] = []

    def build(draft: Draft) -> None:
        started = time.perf_counter()
        target = draft.path / MODEL
        target.mkdir(parents=True, exist_ok=True)
        plan.package.copy(target)
        result: FileResult = write(draft)
        finish_product(plan, target, job.inputs.pooling)
        draft.fingerprint = hashes_fingerprint(result.hashes)
        draft.figures = _figures(job, plan, result) | {"seconds": round(time.perf_counter() - started, 3)}
        results.append(result)

    made = job.store.materialize("merge", plan.recipe.spec(), plan.inputs, build, VERSION)
    if results:
        _keep(job, plan, results[0])
    return made


def finish_product(plan: MergePlan, target: Path, pooling: str | None) -> None:
    """Write what a merged model has beside its weights and the first member's files."""
    for module in {file.module for file in plan.files}:
        write_index(target / module, [(file.name, list(file.entries)) for file in plan.files if file.module == module])
    complete(plan.package, target, pooling)
    types: Counter[torch.dtype] = Counter()
    for file in plan.files:
        if file.module == plan.package.transformer:
            for entry in file.entries:
                if entry.dtype.is_floating_point:
                    types[entry.dtype] += entry.nbytes // int(entry.dtype.itemsize)
    if types:
        write_dtype(target / plan.package.transformer, types.most_common(1)[0][0])


def _keep(job: MergeJob, plan: MergePlan, result: FileResult) -> None:
    """Keep the statistics of a merge that had to compute them for every tensor."""
    merged = sum(entry.dtype.is_floating_point for file in plan.files for entry in file.entries)
    if result.grams and len(result.grams) == merged:
        save_geometry(job, result.grams)
    if result.histograms and len(result.histograms) == merged:
        save_magnitudes(job, result.histograms)


def _figures(job: MergeJob, plan: MergePlan, result: FileResult) -> dict[str, Any]:
    names = [member.name for member in job.inputs.members]
    return {
        "members": names,
        "tensors": plan.tensors,
        "parameters": plan.parameters,
        "bytes_read": result.bytes_read,
        "bytes_written": plan.bytes_out,
        "memory_bound": plan.memory,
        "weights": dict(zip(names, plan.recipe.weights, strict=True)),
        "coefficients": coefficient_ranges(result.notes, names),
        "left_out": list(plan.package.left_out),
    }


def _finished(artifact: Artifact, note: str) -> Event:
    size = float(artifact.figures["bytes_written"])
    return Event("merge", "merged", size, size, note=note, measure="bytes")


def release(store: Store, merged: Artifact, card: str) -> Artifact:
    """The merged model with its card as README.md, which needs the scores and so comes after the evaluation.

    Weights are hard-linked where the file system can; nothing is merged again.

    Args:
        store: where the result goes.
        merged: an artifact of kind ``merge``.
        card: text of the model card, see `boom_ray.merging.product.card.model_card`.

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
