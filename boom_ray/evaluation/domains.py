"""In domain or out of domain, by what was really trained on instead of by what the configuration says."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boom_ray.config import DatasetConfig, EvaluationConfig, TaskConfig
from boom_ray.evaluation.scores import GROUPS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskDomain:
    """What a model that was trained on some datasets has seen of a task's source.

    Attributes:
        task: its name.
        configured: the group that it is reported in, ``in_domain`` or ``out_of_domain``.
        datasets: training dataset of its source to what says so: ``name``, ``source`` or ``overlaps``.
    """

    task: str
    configured: str
    datasets: dict[str, str]

    @property
    def trained(self) -> str:
        """The group that the task belongs in by what was trained on."""
        return GROUPS[0] if self.datasets else GROUPS[1]

    @property
    def is_as_configured(self) -> bool:
        """Whether that is the group in which it is reported."""
        return self.trained == self.configured


def trained_domains(
    config: EvaluationConfig, datasets: Sequence[DatasetConfig], examples: Mapping[str, int]
) -> list[TaskDomain]:
    """Find the training datasets of every reported task's source, and warn where a task's group is another.

    A dataset is of a task's source if they have one name (case and punctuation aside), if it lies in the task's folder
    or is the hub data set that mteb loads the task from, or if the task's ``overlaps`` names it.

    Args:
        config: the tasks; benchmarks are tasks.
        datasets: the configured datasets.
        examples: dataset to examples that were trained on, e.g. those of the bag artifact or of the corpus; a dataset
            with none, or that is not there, was not trained on.

    Raises:
        EvaluationError: mteb knows no such task.
    """
    trained = [one for one in datasets if examples.get(one.name, 0) > 0]
    found = [
        TaskDomain(task.name, group, _related(task, trained)) for group in GROUPS for task in getattr(config, group)
    ]
    for domain in found:
        if not domain.is_as_configured:
            log.warning("%s", _mismatch(domain))
    return found


def domains_table(domains: Sequence[TaskDomain]) -> list[dict[str, Any]]:
    """One row per task, for reports."""
    return [
        {
            "task": one.task,
            "reported as": one.configured.replace("_", "-"),
            "trained on": "; ".join(f"{name} (by {why})" for name, why in one.datasets.items()) or "-",
            "by training": one.trained.replace("_", "-"),
        }
        for one in domains
    ]


def _mismatch(domain: TaskDomain) -> str:
    if domain.datasets:
        names = ", ".join(domain.datasets)
        return (
            f"Task {domain.task} is reported as out-of-domain, but datasets of its source were trained on: {names}. "
            f"Move it to evaluation.in_domain, or take them out of the corpus."
        )
    return (
        f"Task {domain.task} is reported as in-domain, but no dataset of its source was trained on. Name the datasets "
        f"in the task's overlaps, or move it to evaluation.out_of_domain."
    )


def _related(task: TaskConfig, datasets: Sequence[DatasetConfig]) -> dict[str, str]:
    place = _place(task)
    found = {}
    for dataset in datasets:
        if dataset.name in task.overlaps:
            found[dataset.name] = "overlaps"
        elif _plain(task.name) == _plain(dataset.name):
            found[dataset.name] = "name"
        elif _is_inside(place, dataset.source):
            found[dataset.name] = "source"
    return found


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _place(task: TaskConfig) -> str:
    if task.path is not None:
        return task.path
    from boom_ray.evaluation.local_tasks import named_task  # imports mteb

    return str(named_task(task, seed=0).metadata.dataset["path"])


def _is_inside(place: str, source: str) -> bool:
    """Whether a dataset's source is a task's folder or hub name, or a file in that folder."""
    if place.casefold() == source.casefold():
        return True
    folder, file = Path(place).expanduser().absolute(), Path(source).expanduser().absolute()
    return "://" not in source and folder in (file, *file.parents)
