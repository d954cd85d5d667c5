"""One merge, described so that any process can do any of its files: models, recipe, and what is known of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Report
from boom_ray.merging.reading.agreement import check_members
from boom_ray.merging.reading.checkpoint import Checkpoint, open_checkpoint, open_weights
from boom_ray.merging.reading.measured import check_activations, check_fisher
from boom_ray.merging.recipe import MemberRef, Recipe, resolve
from boom_ray.merging.stream import Known, Opened, SavedFile, TensorMerger, write_file
from boom_ray.merging.tensors.space import F64
from boom_ray.merging.tensors.vectors import Pool
from boom_ray.model.folder import is_adapter, tensor_hashes
from boom_ray.store import Store

MOST_THREADS = 8


@dataclass(frozen=True)
class MergeInputs:
    """What is merged.

    Attributes:
        members: in the order of the weights; the first gives pooling, prompts and tokenizer.
        base: the model that members were trained from; read by methods that use it and for adapters.
        fisher: places of the members' Fisher information, for methods that need it.
        activations: places of the members' products of activations, for methods that need them.
        pooling: ``mean``, ``cls`` or ``lasttoken``, for members that are plain transformers folders.
    """

    members: Sequence[MemberRef]
    base: MemberRef | None = None
    fisher: Sequence[MemberRef] = ()
    activations: Sequence[MemberRef] = ()
    pooling: str | None = None


@dataclass(frozen=True)
class MergeJob:
    """A merge, ready to be done in pieces.

    Attributes:
        store: where artifacts are.
        inputs: the models.
        config: the merge section.
        known: what earlier passes found.
    """

    store: Store
    inputs: MergeInputs
    config: MergeConfig
    known: Known = field(default_factory=Known)

    @property
    def recipe(self) -> Recipe:
        """Method and numbers."""
        return resolve(self.config, self.inputs.members)

    @property
    def threads(self) -> int:
        """Threads of a process that merges."""
        return self.config.cpus or min(MOST_THREADS, len(os.sched_getaffinity(0)))

    @property
    def chunk_bytes(self) -> int:
        """Most bytes of one tensor held per model."""
        return self.config.chunk_mb << 20

    @contextlib.contextmanager
    def opened(self, check: bool = True, measured: bool = True) -> Iterator[Opened]:
        """The models, open, and checked against one another.

        Args:
            check: whether they are; not needed again for each file of one merge.
            measured: whether statistics gathered from data must be there already.

        Raises:
            MergeError: members that do not fit together, or rules that match nothing.
            ModelError: a folder that is no model.
        """
        recipe, store = self.recipe, self.store
        with contextlib.ExitStack() as stack:

            def enter(ref: MemberRef, base: Checkpoint | None = None) -> Checkpoint:
                return stack.enter_context(open_checkpoint(store.resolve(ref.path), ref.name, base))

            def weights(ref: MemberRef) -> Checkpoint:
                return stack.enter_context(open_weights(store.resolve(ref.path), ref.name))

            read = recipe.uses_base or any(is_adapter(store.resolve(ref.path)) for ref in self.inputs.members)
            base = enter(self.inputs.base) if self.inputs.base and read else None
            if recipe.uses_base and base is None:
                raise MergeError(f"{recipe.method} works on differences from the base; say which model that is (base).")
            members = [enter(ref, base) for ref in self.inputs.members]
            if check:
                check_members(members, recipe.output_dtype)
                recipe.check(key for key, info in members[0].tensors.items() if info.dtype.is_floating_point)
            found = Opened(
                members,
                [ref.fingerprint for ref in self.inputs.members],
                base if recipe.uses_base else None,
                [weights(ref) for ref in self.inputs.fisher],
                [weights(ref) for ref in self.inputs.activations],
            )
            if check and measured:
                _check_measured(found, recipe)
            yield found


def _check_measured(opened: Opened, recipe: Recipe) -> None:
    if "fisher" in recipe.needs:
        check_fisher(opened.members, opened.fisher)
    if "activations" in recipe.needs:
        check_activations(opened.members, opened.activations)


@dataclass
class FileResult:
    """What merging some files gave.

    Attributes:
        bytes_read: bytes read of all models.
        notes: key to what the method reported about a tensor.
        grams: key to the Gram matrices computed on the way.
        histograms: key to the histograms computed on the way.
        hashes: names, types, shapes and content hashes of the tensors written, for the model's fingerprint.
    """

    bytes_read: int = 0
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    grams: dict[str, F64] = field(default_factory=dict)
    histograms: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    hashes: list[list[Any]] = field(default_factory=list)

    def add(self, other: FileResult) -> None:
        """Take over the result of other files."""
        self.bytes_read += other.bytes_read
        self.notes |= other.notes
        self.grams |= other.grams
        self.histograms |= other.histograms
        self.hashes += other.hashes


def merge_files(
    job: MergeJob, opened: Opened, files: Sequence[SavedFile], target: Path, report: Report, total: int
) -> FileResult:
    """Merge and write some files of the model.

    Args:
        job: the merge.
        opened: its models.
        files: which to write.
        target: folder of the merged model.
        report: told the bytes that are done.
        total: bytes of all files that this process will write, for the report.
    """
    result = FileResult()
    with Pool(job.threads) as pool:
        merger = TensorMerger(opened, job.recipe, pool, job.chunk_bytes, job.known)
        done = 0
        for file in files:
            write_file(merger, file, target, report, done, total)
            done += file.nbytes
            result.hashes += tensor_hashes(target, target / file.module / file.name)
    result.add(FileResult(merger.bytes_read, merger.notes, merger.grams, merger.histograms))
    return result


def coefficient_ranges(notes: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Member to the least and the largest of its coefficients over all tensors; empty for methods without any."""
    rows = [note["coefficients"] for note in notes.values() if "coefficients" in note]
    if not rows:
        return {}
    return {
        name: {"least": min(column), "most": max(column)}
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
