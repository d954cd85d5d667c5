"""Which tasks a finished corpus makes in domain, by the datasets that it has examples of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from boom_ray.config import DatasetConfig, EvaluationConfig
from boom_ray.errors import StoreError
from boom_ray.evaluation.domains import TaskDomain, trained_domains
from boom_ray.flows.workspace import Workspace
from boom_ray.store import Artifact, Store


def corpus_domains(space: Workspace, corpus: Artifact, tasks: EvaluationConfig) -> list[TaskDomain]:
    """Find the datasets of a corpus that are of every reported task's source, and warn where a task's group is another.

    A corpus keeps what its datasets are called, not where they came from; that is in the lineage of the run or update
    that made it. Without one in the store, tasks are matched by name and ``overlaps`` alone, which is said.

    Args:
        space: holds the corpus, and who listens to progress.
        corpus: what `boom_ray.corpus.ingest.ingest` returned.
        tasks: what is evaluated; benchmarks are tasks.

    Raises:
        EvaluationError: mteb knows no such task.
    """
    datasets = _of_lineage(space.store, corpus)
    if datasets is None:
        space.progress.say(
            f"The store has no run of corpus/{corpus.key}, so where its datasets came from is not known: tasks are "
            f"matched with them by name and overlaps only."
        )
        datasets = [
            DatasetConfig(name=name, source=f"artifact://dataset/{facts['key']}", task_type=facts["task_type"])
            for name, facts in corpus.spec.items()  # "://": no folder of a task is that place
        ]
    rows = {name: int(facts["rows"]) for name, facts in corpus.figures["datasets"].items()}
    return trained_domains(tasks, datasets, rows)


def _of_lineage(store: Store, corpus: Artifact) -> Sequence[DatasetConfig] | None:
    """The datasets as the newest run or update of the corpus has them, if there is one."""
    from boom_ray.flows.lineage import lineages, read  # imports the training stages, for a rare question

    for artifact in reversed(lineages(store)):
        if artifact.inputs.get("corpus") == corpus.key:
            with contextlib.suppress(StoreError):  # of another version
                return read(artifact).config.corpus.datasets
    return None
