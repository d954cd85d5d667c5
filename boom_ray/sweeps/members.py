"""Members in memory: those of several sets, merged into one live model, as many as there is room for."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import nn

from boom_ray.merging.geometry.statistics import find_geometry
from boom_ray.merging.job import MergeJob
from boom_ray.merging.live import LiveMerger
from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo
from boom_ray.merging.stream import Known, Opened
from boom_ray.merging.survey import gather_geometry
from boom_ray.merging.tensors.sources import Place, common_values

GRAMS = frozenset({"gram", "model_gram"})
CHECKED = GRAMS | {"fisher", "activations"}
SetKey: TypeAlias = tuple[Any, ...]


class MemberSets:
    """Live mergers of one model by member set; sets that have members in common hold them once.

    Inner products come from the store, where the first process that needs them leaves them.

    Args:
        model: the live model, named as the members' tensors are.
        threads: threads on the CPU.
        room: most bytes of members and base that are kept; a set that alone takes more is loaded all the same.
    """

    def __init__(self, model: nn.Module, threads: int, room: float) -> None:
        """Nothing is loaded."""
        self._model, self._threads, self._room = model, threads, room
        self._mergers: OrderedDict[SetKey, LiveMerger] = OrderedDict()
        self._models: dict[SetKey, frozenset[str]] = {}
        self._tensors: WeakValueDictionary[tuple[Path, str], torch.Tensor] = WeakValueDictionary()

    @property
    def held(self) -> frozenset[str]:
        """Fingerprints of the models that are in memory."""
        return frozenset().union(*self._models.values())

    @property
    def nbytes(self) -> int:
        """Bytes of their tensors."""
        return sum(tensor.nbytes for tensor in list(self._tensors.values()))

    def merger(self, job: MergeJob) -> LiveMerger:
        """What merges the members of a job into the model.

        Raises:
            MergeError: members that do not fit together or the model, or hold NaN or infinity; damaged files.
            ModelError: a folder that is no model.
        """
        key = _key(job)
        if key not in self._mergers:
            self._load(key, job)
        self._mergers.move_to_end(key)
        return self._mergers[key]

    def clear(self) -> None:
        """Let go of all members."""
        while self._mergers:
            self._drop()

    def _load(self, key: SetKey, job: MergeJob) -> None:
        recipe, refs = job.recipe, job.inputs
        with job.opened() as opened:
            _check_integers(opened)
            while self._mergers and self.nbytes + self._missing(opened) > self._room:
                self._drop()
            known = Known()
            if recipe.needs & GRAMS:
                known = find_geometry(job)
                known = known if known.grams else gather_geometry(job, opened)
            self._mergers[key] = LiveMerger(
                self._model, opened, known, self._threads, recipe.merge_dtype, self._tensors
            )
        base = [refs.base.fingerprint] if refs.base and recipe.uses_base else []
        self._models[key] = frozenset([*(ref.fingerprint for ref in refs.members), *base])

    def _drop(self) -> None:
        """Let go of the set that was used longest ago; what others share with it stays."""
        key, merger = self._mergers.popitem(last=False)
        del self._models[key]
        merger.close()
        del merger
        gc.collect()  # an error that was raised while it merged may hold it in a cycle

    def _missing(self, opened: Opened) -> int:
        """Bytes that a set would add."""
        return sum(
            info.numel * int(model.read_type(info).itemsize)
            for model, info in _floating(opened)
            if (model.folder, info.key) not in self._tensors
        )


def _key(job: MergeJob) -> SetKey:
    """What determines a live merger: the models, the kind and type of their vectors, and what was checked of them."""
    recipe, inputs = job.recipe, job.inputs
    refs = (inputs.members, inputs.fisher, inputs.activations)
    base = inputs.base.fingerprint if inputs.base and recipe.uses_base else None
    groups = [tuple(ref.fingerprint for ref in group) for group in refs]
    return (*groups, base, recipe.merge_dtype, recipe.output_dtype, recipe.needs & CHECKED)


def _floating(opened: Opened) -> Iterator[tuple[Checkpoint, TensorInfo]]:
    for model in opened.models:
        for info in model.tensors.values():
            if info.dtype.is_floating_point:
                yield model, info


def _check_integers(opened: Opened) -> None:
    """Refuse what a merge on disk refuses: members whose integer tensors differ."""
    for key, info in opened.members[0].tensors.items():
        if not info.dtype.is_floating_point:
            for _ in common_values([Place(one, one.tensors[key]) for one in opened.members], key):
                pass
