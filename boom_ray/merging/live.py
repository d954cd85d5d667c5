"""Merging straight into a live model: what sweeps do, without writing or loading a model per trial.

The members' tensors stay in memory beside the model, in the type they are stored in, on the model's device; every
recipe is then computed from them by the same methods as a merge on disk, and copied into the model's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boom_ray.errors import MergeError
from boom_ray.merging.reading.agreement import align_base
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.recipe import Recipe
from boom_ray.merging.stream import Known, Opened, output_type, rounded, stacked
from boom_ray.merging.tensors.magnitudes import Histograms
from boom_ray.merging.tensors.sources import Place, arithmetic
from boom_ray.merging.tensors.vectors import MemoryVectors, Pool, Strip, diverged
from boom_ray.merging.tensors.whole import WholeModel, whole_cuts, whole_space
from boom_ray.model.folder import modules

UNITED = ("auto_model", "model", "transformer")
"""Names under which wrappers keep the transformers model."""
Shared = MutableMapping[tuple[Path, str], torch.Tensor]
"""Tensors in memory by model folder and key."""
Case = tuple[str, bool, torch.dtype]
"""Key of a tensor, whether its vectors are differences from the base, and the type of the arithmetic."""


class LiveMerger:
    """Members held beside a live model, whose parameters become any merge of them.

    Args:
        model: a `SentenceTransformer`, or any module whose parameters are named as the members' tensors.
        opened: the members and, for methods on differences, the base; may be closed afterwards.
        known: inner products from earlier passes, if there are any; missing ones are computed once.
        threads: threads on the CPU.
        known_dtype: ``merge_dtype`` of the recipe that ``known`` was computed with; recipes with another one, or the
            other kind of vectors, compute their own, so that the result never depends on what was known.
        shared: tensors of models that other live mergers on the same device hold, too; what is read here is added.

    Raises:
        MergeError: the model lacks a tensor that the members have, or it has another shape; a member or the base
            holds NaN or infinity.

    Memory: (members + base) x size of the model, on the model's device, less what is shared; kilobytes per tensor for
    what methods have found out.
    """

    def __init__(
        self,
        model: nn.Module,
        opened: Opened,
        known: Known | None = None,
        threads: int = 1,
        known_dtype: str = "auto",
        shared: Shared | None = None,
    ) -> None:
        """Read all members."""
        self._shared: Shared = {} if shared is None else shared
        self._labels, self._known, self._known_dtype = opened.labels, known or Known(), known_dtype
        self._targets = targets(model, opened.members[0])
        self._pool = Pool(threads)
        aligned = align_base(opened.base, opened.members[0]) if opened.base else {}
        self._places: dict[str, list[Place]] = {}
        self._members: dict[str, list[torch.Tensor]] = {}
        self._base: dict[str, torch.Tensor] = {}
        self._activations = {key: stacked(opened.activations, key) for key in self._targets}
        self._fisher: dict[str, list[torch.Tensor]] = {}
        for key, target in self._targets.items():
            places = [Place(one, one.tensors[key]) for one in opened.members]
            self._members[key] = [self._held(place, key, target.device) for place in places]
            if opened.base:
                places.append(Place(opened.base, aligned[key]))
                self._base[key] = self._held(places[-1], key, target.device)
            self._places[key] = places
            self._fisher[key] = [
                _tensor(one, one.tensors[key], target.device) for one in opened.fisher if key in one.tensors
            ]
        self._spaces: dict[Case, MemoryVectors] = {}
        self._counted: dict[Case, dict[str, Any]] = {}

    def apply(self, recipe: Recipe) -> None:
        """Set the model's parameters to the merge of a recipe, as if it had been saved and loaded.

        Values are rounded to the recipe's output type, and from it to that of the parameters where that is another.

        What is checked beforehand (base, rules) leaves the model as it was. An error in the middle, such as a value
        that a parameter's type cannot hold, leaves parts of both: tensors before the one that it names, in the order
        of the members' keys, have their new values, those after it the old ones, and that tensor may have some of
        each. The next `apply` sets all of them again.

        Raises:
            MergeError: the recipe needs a base and there is none, its rules do not fit the tensors, or a value does
                not fit into the type of the arithmetic or of a parameter.
        """
        if recipe.uses_base and not self._base:
            raise MergeError(f"{recipe.method} needs the base; open it when the live merger is made.")
        recipe.check(self._targets)
        whole = self._whole(recipe)
        with torch.no_grad():
            for key, target in self._targets.items():
                self._merge(key, target, recipe, whole)

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _merge(self, key: str, target: torch.Tensor, recipe: Recipe, whole: WholeModel | None) -> None:
        vectors = self._vectors(key, recipe, whole)
        weights, parameters = recipe.at(key)
        entry = recipe.entry
        combine = entry.prepare(vectors, weights, parameters)
        flat, saved = target.view(-1), output_type(self._places[key][0].info, recipe.output_dtype)
        is_narrow = torch.finfo(target.dtype).max < torch.finfo(saved).max

        def write(strip: Strip) -> None:
            values = rounded(combine(strip), strip.base, saved, key)
            if is_narrow:
                values = rounded(values, None, target.dtype, key)
            flat[strip.start : strip.start + len(values)] = values

        vectors.map(write, entry.rows_for(parameters))
        self._fold(self._case(key, recipe), vectors)

    def _held(self, place: Place, key: str, device: torch.device) -> torch.Tensor:
        """A tensor of a model, read unless somebody holds it."""
        name = (place.model.folder, place.info.key)
        found = self._shared.get(name)
        if found is None:
            found = self._shared[name] = _finite(place, key, device)
        return found

    def _case(self, key: str, recipe: Recipe) -> Case:
        """What determines the vectors of a tensor; the arithmetic follows from the types in the files, as on disk."""
        count = len(self._labels)
        places = self._places[key] if recipe.uses_base else self._places[key][:count]
        return key, recipe.uses_base, arithmetic(places, recipe.merge_dtype)

    def _fold(self, case: Case, vectors: MemoryVectors) -> None:
        """Keep a tensor's histograms in their short form: the long one has a quarter of a megabyte per member."""
        counted = vars(vectors).pop("histograms", None)
        if counted is not None and case not in self._counted:
            self._counted[case] = counted.to_arrays()

    def _vectors(self, key: str, recipe: Recipe, whole: WholeModel | None) -> MemoryVectors:
        """Vectors of one tensor; those of earlier recipes are used again, with all that they have found out."""
        case = self._case(key, recipe)
        found = self._spaces.get(case)
        if found is None:
            base = self._base[key] if recipe.uses_base else None
            found = MemoryVectors(key, self._members[key], base, self._labels, case[2], self._pool, self._fisher[key])
            found.products = self._activations[key]
            if recipe.merge_dtype == self._known_dtype:
                found.know(self._known.space(key, recipe.uses_base))
            self._spaces[case] = found
        if case in self._counted and recipe.needs & {"magnitudes", "model_magnitudes"}:
            found.know(histograms=Histograms.from_arrays(self._counted[case]))
        found.whole_model = whole
        found.notes, found.least_rows = {}, recipe.entry.least_rows
        return found

    def _whole(self, recipe: Recipe) -> WholeModel | None:
        if "model_gram" in recipe.needs:
            return WholeModel(whole_space(one.space for one in self._all(recipe)), None)
        if "model_magnitudes" in recipe.needs:
            return WholeModel(None, whole_cuts(lambda: self._all(recipe), float(recipe.parameters["density"])))
        return None

    def _all(self, recipe: Recipe) -> Iterator[MemoryVectors]:
        for key in self._targets:
            found = self._vectors(key, recipe, None)
            yield found
            self._fold(self._case(key, recipe), found)


def targets(model: nn.Module, member: Checkpoint) -> dict[str, torch.Tensor]:
    """The live tensor for every floating tensor of a member, by the member's key.

    Raises:
        MergeError: one is missing, or has another shape.
    """
    found: dict[str, torch.Tensor] = {}
    by_module = _states(model, member)
    for key, info in member.tensors.items():
        if not info.dtype.is_floating_point:
            continue
        target = by_module.get(info.module, {}).get(info.name)
        if target is None:
            raise MergeError(f"The live model has no tensor {key}, which member {member.label} has.")
        if tuple(target.shape) != info.shape:
            raise MergeError(
                f"Tensor {key} has shape {list(info.shape)} in {member.label} and {list(target.shape)} in the live "
                f"model."
            )
        found[key] = target.data
    return found


def _states(model: nn.Module, member: Checkpoint) -> dict[str, Mapping[str, torch.Tensor]]:
    """Module folder to the live tensors by the names that they have in files."""
    names: dict[str, set[str]] = {}
    for info in member.tensors.values():
        names.setdefault(info.module, set()).add(info.name)
    folder = member.package_folder  # of adapters the base's, unless sentence-transformers saved them
    parts, listed = [part for _, part in model.named_children()], modules(folder)
    if not isinstance(model, nn.Sequential) or len(parts) != len(listed):
        return {module: _named(model, wanted) for module, wanted in names.items()}
    places = [module.path.relative_to(folder).as_posix().removeprefix(".") for module in listed]
    return {place: _named(part, names.get(place, set())) for place, part in zip(places, parts, strict=True)}


def _named(part: nn.Module, wanted: set[str]) -> dict[str, torch.Tensor]:
    """Tensors by name of a module, or of the transformers model inside it when that is what has the wanted names."""
    inner = [getattr(part, name) for name in UNITED if isinstance(getattr(part, name, None), nn.Module)]
    found: dict[str, torch.Tensor] = {}
    for one in [*inner, part]:
        found = {**dict(one.named_buffers()), **dict(one.named_parameters(remove_duplicate=False))}
        if wanted <= found.keys():
            break
    return found


def _tensor(model: Checkpoint, info: TensorInfo, device: torch.device) -> torch.Tensor:
    values = model.read(info, 0, info.numel, torch.empty(info.nbytes, dtype=torch.uint8))
    return values.view(info.shape).to(device)


def _finite(place: Place, key: str, device: torch.device) -> torch.Tensor:
    """The tensor on the device, checked before anything is merged.

    Raises:
        MergeError: it holds NaN or infinity.
    """
    values = _tensor(place.model, place.info, device)
    if not bool(torch.isfinite(values).all()):
        raise diverged(key, f"{place.model.label} ({place.model.folder})")
    return values
