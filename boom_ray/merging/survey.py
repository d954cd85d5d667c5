"""What a merge must know before its first tensor: looked up in the store, or computed by a pass over all tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from boom_ray.errors import MergeError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.geometry.statistics import find_geometry, find_magnitudes, save_geometry, save_magnitudes
from boom_ray.merging.job import MergeJob
from boom_ray.merging.stream import Known, Opened, TensorMerger
from boom_ray.merging.tensors.sources import FileVectors
from boom_ray.merging.tensors.vectors import Pool, Vectors
from boom_ray.merging.tensors.whole import WholeModel, whole_cuts, whole_space


def survey(job: MergeJob, opened: Opened, report: Report = silent) -> Known:
    """What the recipe needs to know about the members beside the tensor at hand.

    Inner products are looked up; only methods that need those of the whole model compute missing ones here, since other
    methods get theirs on the way.
    """
    needs = job.recipe.needs
    known = Known()
    if needs & {"gram", "model_gram"}:
        known = find_geometry(job)
    if "model_gram" in needs:
        known = known if known.grams else gather_geometry(job, opened, report)
        spaces = [known.space(key, job.recipe.uses_base) for key in sorted(known.grams)]
        known = dataclasses.replace(known, whole=WholeModel(whole_space(one for one in spaces if one), None))
    if needs & {"magnitudes", "model_magnitudes"}:
        counted = find_magnitudes(job)
        known = dataclasses.replace(known, histograms=counted)
    if "model_magnitudes" in needs:
        density = float(job.recipe.parameters["density"])
        with Pool(job.threads) as pool:
            merger = TensorMerger(opened, job.recipe, pool, job.chunk_bytes, known)
            told = _Told(opened, report, passes=2)
            cuts = whole_cuts(lambda: told(merger.all_vectors()), density)
            told.end()
        if merger.histograms:
            save_magnitudes(job, merger.histograms)
        known = dataclasses.replace(known, whole=WholeModel(None, cuts))
    return known


def gather_geometry(job: MergeJob, opened: Opened, report: Report = silent) -> Known:
    """Compute the inner products of all tensors and keep them, without merging.

    Raises:
        MergeError: a member holds NaN or infinity.
    """
    grams = {}
    with Pool(job.threads) as pool:
        merger = TensorMerger(opened, job.recipe, pool, job.chunk_bytes, Known())
        for vectors in _Told(opened, report)(merger.all_vectors()):
            grams[vectors.name] = vectors.space.basis
    if not grams:
        raise MergeError(f"{opened.members[0].label} has no floating tensor; there is nothing to merge.")
    save_geometry(job, grams)
    return Known(grams, about_base=job.recipe.uses_base)


class _Told:
    """Reports the bytes that passes over the model look at.

    Args:
        opened: the models.
        report: told.
        passes: most passes that there will be.
    """

    def __init__(self, opened: Opened, report: Report, passes: int = 1) -> None:
        """Nothing is looked at yet."""
        self._sizes = {info.key: info.nbytes for info in opened.floating()}
        self._report, self._done, self._total = report, 0, passes * sum(self._sizes.values())

    def __call__(self, vectors: Iterator[FileVectors]) -> Iterable[Vectors]:
        """The same vectors, each reported after it was looked at."""
        for one in vectors:
            yield one
            self._add(self._sizes[one.name])

    def end(self) -> None:
        """Report the rest, of passes that were not needed."""
        if self._done < self._total:
            self._add(self._total - self._done)

    def _add(self, nbytes: int) -> None:
        self._done += nbytes
        self._report(Event("merge", "looked at", self._done, self._total, measure="bytes"))
