"""Bags of whole datasets: one per dataset, per task type, or per cluster of datasets (PAPER.md section 2).

Each bag holds every example of its datasets once, so all bags of a granularity together are one full run. A bag of all
datasets is the bag of everything, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from boom_ray.config import BagConfig, DatasetConfig

Granularity = Literal["dataset", "task_type", "cluster"]


def granular_bags(
    granularity: Granularity, datasets: Sequence[DatasetConfig], clusters: Sequence[Iterable[str]] = ()
) -> tuple[BagConfig, ...]:
    """The bags of members that are trained on one part of the datasets each.

    Args:
        granularity: what a part is.
        datasets: of the corpus.
        clusters: names of the datasets of every cluster; only for clusters, together all datasets.

    Returns:
        Bags ``dataset-NAME``, ``task-TYPE`` or ``cluster-NUMBER`` (from 1), in the order of the datasets or clusters.
        A part of the same datasets is the same draw under each granularity, and so the same member.

    Raises:
        ValueError: the clusters do not have every dataset once.
    """
    if granularity == "cluster":
        parts = {f"cluster-{number}": tuple(names) for number, names in enumerate(clusters, 1)}
    elif granularity == "task_type":
        kinds = dict.fromkeys(one.task_type for one in datasets)
        parts = {f"task-{kind}": tuple(one.name for one in datasets if one.task_type == kind) for kind in kinds}
    else:
        parts = {f"dataset-{one.name}": (one.name,) for one in datasets}
    _check(parts, datasets)
    whole = len(datasets)
    return tuple(
        BagConfig(name=name, ratio=1.0, datasets=() if len(names) == whole else names) for name, names in parts.items()
    )


def _check(parts: Mapping[str, Sequence[str]], datasets: Sequence[DatasetConfig]) -> None:
    named, known = sorted(name for names in parts.values() for name in names), sorted(one.name for one in datasets)
    if named != known:
        raise ValueError(f"the clusters must have every dataset once: {', '.join(known)}; they have {', '.join(named)}")
