"""The merge of models on disk: tensor by tensor and strip by strip, so that memory does not grow with the model.

Per tensor: the passes that its method makes over the members (none when all it needs is known), then one that combines
and writes. A tensor that fits in a chunk is read once. Every element is rounded once, from the type of the arithmetic
to the output type; so bytes depend neither on chunk size nor on threads.

Memory: see `boom_ray.merging.memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from boom_ray.errors import MergeError
from boom_ray.events import Event, Report
from boom_ray.merging.product.writer import Entry, SafetensorsWriter, plan_shards
from boom_ray.merging.reading.agreement import align_base
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.tensors.magnitudes import Histograms
from boom_ray.merging.tensors.sources import FileVectors, Held, Place, arithmetic, common_values
from boom_ray.merging.tensors.space import F64, Space
from boom_ray.merging.tensors.vectors import Pool, Strip
from boom_ray.merging.tensors.whole import WholeModel

Put = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True)
class Opened:
    """The models of a merge, open.

    Attributes:
        members: they agree with one another (`check_members`).
        labels: their fingerprints.
        base: the base, when vectors are differences from it.
        fisher: Fisher information of every member, tensors named as the member's.
        activations: products of the inputs of every linear layer of every member, named as its weight.
    """

    members: Sequence[Checkpoint]
    labels: Sequence[str]
    base: Checkpoint | None = None
    fisher: Sequence[Checkpoint] = ()
    activations: Sequence[Checkpoint] = ()

    @property
    def models(self) -> list[Checkpoint]:
        """The models whose bytes are read."""
        return [*([self.base] if self.base else []), *self.members]

    def floating(self) -> list[TensorInfo]:
        """The tensors that are merged, by key."""
        return [info for info in self.members[0].tensors.values() if info.dtype.is_floating_point]


@dataclass(frozen=True)
class Known:
    """What earlier passes over the same models found.

    Attributes:
        grams: key to the (M + 1, M + 1) Gram matrix of the base and the differences from it, or without a base the
            (M, M) one of the first member and the others' differences from it.
        about_base: which of the two.
        histograms: key to the histograms of the vectors' magnitudes, in the form of `Histograms.to_arrays`.
        whole: statistics of the whole model.
    """

    grams: Mapping[str, F64] = field(default_factory=dict)
    about_base: bool = False
    histograms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    whole: WholeModel | None = None

    def space(self, key: str, has_base: bool) -> Space | None:
        """Inner products of a tensor's vectors, if they were computed for vectors of this kind.

        Those of whole weights also follow from those about the base, but only to rounding, and what is known must not
        decide a byte.
        """
        gram = self.grams.get(key)
        if gram is None or has_base != self.about_base:
            return None
        return Space.of_differences(gram, whole=False) if has_base else Space.of_first(gram)


class TensorMerger:
    """Merged values of any tensor of the members.

    Args:
        opened: the models.
        recipe: method and numbers.
        pool: threads.
        chunk_bytes: most bytes of one tensor held per model.
        known: what earlier passes found.

    Attributes:
        bytes_read: bytes read so far.
        notes: key to what the method reported about a tensor.
        grams: key to the Gram matrices that were computed on the way, see `Known`.
        histograms: key to the histograms that were computed on the way, see `Known`.
    """

    def __init__(self, opened: Opened, recipe: Recipe, pool: Pool, chunk_bytes: int, known: Known) -> None:
        """Align the base with the members."""
        self.opened, self.recipe, self.pool, self.known = opened, recipe, pool, known
        self._aligned = align_base(opened.base, opened.members[0]) if opened.base else {}
        self._held = Held(chunk_bytes)
        self.bytes_read = 0
        self.notes: dict[str, dict[str, Any]] = {}
        self.grams: dict[str, F64] = {}
        self.histograms: dict[str, Mapping[str, Any]] = {}

    def vectors(self, key: str) -> FileVectors:
        """The vectors of one tensor."""
        opened = self.opened
        places = [Place(one, one.tensors[key]) for one in opened.members]
        base = Place(opened.base, self._aligned[key]) if opened.base else None
        space = self.known.space(key, base is not None)
        found = FileVectors(
            key,
            places,
            base,
            opened.labels,
            arithmetic([*([base] if base else []), *places], self.recipe.merge_dtype),
            self.pool,
            self._held if self._looks_twice(space) else None,
            [Place(one, one.tensors[key]) for one in opened.fisher if key in one.tensors],
            self._activations(key),
            self.known.whole,
        )
        counted = self.known.histograms.get(key)
        found.know(space, None if counted is None else Histograms.from_arrays(counted))
        return found

    def all_vectors(self) -> Iterator[FileVectors]:
        """The vectors of every floating tensor; their reading is counted."""
        for info in self.opened.floating():
            found = self.vectors(info.key)
            yield found
            self.learn(found)

    def merge(self, key: str, dtype: torch.dtype, put: Put) -> None:
        """Merge one tensor.

        Args:
            key: its name.
            dtype: type of the result.
            put: told (first element, (n,) values in ``dtype``) of every piece, from several threads, in any order.

        Raises:
            MergeError: a member holds NaN or infinity there, integer tensors differ, or ``dtype`` cannot hold a value.
        """
        members = self.opened.members
        if not members[0].tensors[key].dtype.is_floating_point:
            for start, values in common_values([Place(one, one.tensors[key]) for one in members], key):
                put(start, values)
            return
        vectors = self.vectors(key)
        weights, parameters = self.recipe.at(key)
        entry = self.recipe.entry
        vectors.least_rows = entry.least_rows
        combine = entry.prepare(vectors, weights, parameters)

        def write(strip: Strip) -> None:
            put(strip.start, rounded(combine(strip), strip.base, dtype, key))

        vectors.map(write, entry.rows_for(parameters))
        self.notes[key] = vectors.notes
        self.learn(vectors)

    def learn(self, vectors: FileVectors) -> None:
        """Keep what was found out about a tensor."""
        key, found = vectors.name, vectors.found()
        self.bytes_read += vectors.bytes_read
        if "space" in found and self.known.space(key, vectors.has_base) is None:
            self.grams[key] = found["space"].basis
        if "histograms" in found and key not in self.known.histograms:
            self.histograms[key] = found["histograms"].to_arrays()

    def _looks_twice(self, space: Space | None) -> bool:
        needs = self.recipe.needs
        return ("gram" in needs and space is None) or "magnitudes" in needs

    def _activations(self, key: str) -> F64 | None:
        return stacked(self.opened.activations, key)


def stacked(models: Sequence[Checkpoint], key: str) -> F64 | None:
    """One small matrix of every model, (M, rows, columns) float64; None when one of the models does not have it."""
    if not models or any(key not in model.tensors for model in models):
        return None
    whole = []
    for model in models:
        info = model.tensors[key]
        values = model.read(info, 0, info.numel, torch.empty(info.nbytes, dtype=torch.uint8))
        whole.append(values.to(torch.float64).view(info.shape))
    matrices: F64 = torch.stack(whole).numpy()
    return matrices


def rounded(values: torch.Tensor, base: torch.Tensor | None, dtype: torch.dtype, key: str) -> torch.Tensor:
    """A merged vector, with the base added, in the output type.

    Raises:
        MergeError: the type cannot hold a value.
    """
    merged = values if base is None else base.add_(values) if bool(values.any()) else base  # -0.0 + 0.0 is not -0.0
    least, most = torch.aminmax(merged)
    largest = torch.finfo(dtype).max
    if not -largest <= float(least) <= float(most) <= largest:
        way = "set merge.output_dtype=float32, or " if int(dtype.itemsize) == 2 else ""
        raise MergeError(
            f"Merged tensor {key} has a value of {float(most):g} (least {float(least):g}), which {dtype} cannot hold; "
            f"{way}choose a smaller scale or other weights."
        )
    return merged.to(dtype)


def output_type(info: TensorInfo, wanted: str) -> torch.dtype:
    """Type of a merged tensor: integers keep theirs, floating ones get the wanted one, or keep theirs (``members``)."""
    if wanted == "members" or not info.dtype.is_floating_point:
        return info.dtype
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


@dataclass(frozen=True)
class SavedFile:
    """One file of the merged model: its module's folder, its name, and its tensors in their order."""

    module: str
    name: str
    entries: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        """Size of its tensors; bytes."""
        return sum(entry.nbytes for entry in self.entries)

    def key(self, entry: Entry) -> str:
        """Key of one of its tensors."""
        return f"{self.module}/{entry.name}" if self.module else entry.name


def plan_files(first: Checkpoint, recipe: Recipe) -> list[SavedFile]:
    """The files of the merged model, laid out by module as the first member's; known before anything is merged."""
    files = []
    infos = list(first.tensors.values())
    for module in sorted({info.module for info in infos}):
        own = [
            Entry(info.name, output_type(info, recipe.output_dtype), info.shape)
            for info in infos
            if info.module == module
        ]
        files += [SavedFile(module, name, tuple(shard)) for name, shard in plan_shards(own, recipe.shard_bytes)]
    return files


def write_file(merger: TensorMerger, file: SavedFile, target: Path, report: Report, done: int, total: int) -> None:
    """Merge all tensors of one file.

    Args:
        merger: gives the values.
        file: what to write.
        target: folder of the merged model.
        report: told the bytes of the merged model that are done.
        done: bytes done before.
        total: bytes of the whole model.
    """
    folder = target / file.module
    folder.mkdir(parents=True, exist_ok=True)
    with SafetensorsWriter(folder / file.name, file.entries) as writer:
        for entry in file.entries:
            merger.merge(file.key(entry), entry.dtype, _putter(writer, entry.name))
            if (done + entry.nbytes) * 100 // max(1, total) > done * 100 // max(1, total):
                report(Event("merge", "merged", done + entry.nbytes, total, measure="bytes"))
            done += entry.nbytes


def _putter(writer: SafetensorsWriter, name: str) -> Put:
    return lambda start, values: writer.put(name, start, values)
