"""Task folders as mteb tasks. The data is made in memory, so nothing asks the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import (
    FolderData,
    LabelledData,
    PairData,
    RankingData,
    RetrievalData,
    train_split,
)
from boom_ray.evaluation.proxies import load_data
from boom_ray.hashing import digest

FORMS: dict[str, tuple[type[AbsTask], str, str, str]] = {
    # form: mteb's class, mteb's type, main score, category
    "retrieval": (AbsTaskRetrieval, "Retrieval", "ndcg_at_10", "t2t"),
    "reranking": (AbsTaskRetrieval, "Reranking", "map_at_1000", "t2t"),
    "sts": (AbsTaskSTS, "STS", "cosine_spearman", "t2t"),
    "pair": (AbsTaskPairClassification, "PairClassification", "max_ap", "t2t"),
    "bitext": (AbsTaskBitextMining, "BitextMining", "f1", "t2t"),
    "classification": (AbsTaskClassification, "Classification", "accuracy", "t2c"),
    "clustering": (AbsTaskClustering, "Clustering", "v_measure", "t2c"),
}


def load_task(task: TaskConfig, seed: int, hashes: Mapping[str, str] | None = None) -> AbsTask:
    """The mteb task of a configuration: a folder with its data in memory, or mteb's task of that name.

    Args:
        task: what to load.
        seed: seed of mteb's probes and subsamples, and of the rows of a proxy.
        hashes: of a folder's files by their names; make the revision of the data that its result file gives.

    Raises:
        EvaluationError: the folder is faulty or its size too small, or mteb knows no such task.
    """
    if task.path is None:
        return named_task(task, seed)
    return local_task(task, load_data(task, seed, hashes), seed, digest(dict(hashes)) if hashes else "local")


def named_task(task: TaskConfig, seed: int) -> AbsTask:
    """Mteb's own task, restricted to the configured split and subsets; its data is loaded when it is evaluated."""
    try:
        cls = type(mteb.get_task(task.name))
    except KeyError as error:
        raise EvaluationError(f"mteb {mteb.__version__} has no task {task.name}: {error.args[0]}") from error
    found = cls(seed=seed)
    splits = [task.split, *task.extra_splits]
    unknown = next((split for split in splits if split not in found.metadata.eval_splits), None)
    if unknown is not None:
        known = ", ".join(found.metadata.eval_splits)
        raise EvaluationError(f"mteb's task {task.name} has no split {unknown}; it has: {known}.")
    return found.filter_languages(None, hf_subsets=task.subsets or None).filter_eval_splits(splits)


def local_task(task: TaskConfig, data: FolderData, seed: int, revision: str = "local") -> AbsTask:
    """An mteb task over the data of a folder."""
    base = FORMS[str(task.type)][0]
    attributes: dict[str, Any] = {"metadata": _metadata(task, revision)}
    if isinstance(data, PairData):
        attributes |= {"min_score": task.score_range[0], "max_score": task.score_range[1]}
    if isinstance(data, LabelledData) and task.type == "classification":
        attributes |= {"train_split": train_split(task.split)}
    if isinstance(data, LabelledData) and task.type == "clustering":
        attributes |= _clustering_sizes(min(len(data.texts), task.max_clustered))
    made = type(f"Local{base.__name__}", (base,), attributes)(seed=seed)
    made.dataset = _dataset(task, data)
    made.data_loaded = True
    return made


def _metadata(task: TaskConfig, revision: str) -> TaskMetadata:
    _, kind, score, category = FORMS[str(task.type)]
    return TaskMetadata(
        name=task.name,
        description=f"The {task.type} folder {task.name}, split {task.split}.",
        type=kind,
        category=category,
        modalities=["text"],
        main_score=score,
        eval_splits=[task.split],
        eval_langs=[task.language],
        dataset={"path": f"local/{task.name}", "revision": revision},
        prompt=task.instruction or None,
        license="not specified",
        is_public=False,
    )


def _clustering_sizes(size: int) -> dict[str, Any]:
    """Embed ``size`` texts and cluster as many per experiment; mteb's default, 4 %, is meant for huge collections."""
    return {
        "max_fraction_of_documents_to_embed": None,
        "max_document_to_embed": size,
        "max_documents_per_cluster": size,
    }


def _dataset(task: TaskConfig, data: FolderData) -> Any:
    if isinstance(data, RetrievalData):
        return {"default": {task.split: _retrieval(data)}}
    if isinstance(data, RankingData):
        return {"default": {task.split: _ranking(data)}}
    if isinstance(data, PairData):
        return DatasetDict({task.split: _pairs(task, data)})
    if task.type == "clustering":
        return DatasetDict({task.split: Dataset.from_dict({"sentences": data.texts, "labels": data.labels})})
    return DatasetDict(
        {
            task.split: Dataset.from_dict({"text": data.texts, "label": data.labels}),
            train_split(task.split): Dataset.from_dict({"text": data.train_texts, "label": data.train_labels}),
        }
    )


def _pairs(task: TaskConfig, data: PairData) -> Dataset:
    columns: dict[str, Any] = {"sentence1": data.first, "sentence2": data.second}
    if task.type == "pair":
        columns["labels"] = [int(score) for score in data.scores]
    elif task.type == "sts":
        columns["score"] = data.scores
    return Dataset.from_dict(columns)


def _retrieval(data: RetrievalData) -> dict[str, Any]:
    titles, texts = zip(*data.corpus.values(), strict=True)
    return {
        "corpus": Dataset.from_dict({"id": list(data.corpus), "title": list(titles), "text": list(texts)}),
        "queries": Dataset.from_dict({"id": list(data.queries), "text": list(data.queries.values())}),
        "relevant_docs": {query: dict(scores) for query, scores in data.relevant.items()},
        "top_ranked": None,
    }


def _ranking(data: RankingData) -> dict[str, Any]:
    """Every candidate is a passage of its own, named as mteb names those of its reranking tasks, so ties fall alike."""
    ids: list[str] = []
    texts: list[str] = []
    relevant: dict[str, dict[str, int]] = {}
    ranked: dict[str, list[str]] = {}
    for number, (positives, negatives) in enumerate(zip(data.positives, data.negatives, strict=True)):
        query = f"query{number}"
        good = [f"apositive_{query}_{place:05d}" for place in range(len(positives))]
        bad = [f"negative_{query}_{place:05d}" for place in range(len(negatives))]
        relevant[query] = dict.fromkeys(good, 1) | dict.fromkeys(bad, 0)
        ranked[query] = [*good, *bad]
        ids += ranked[query]
        texts += [*positives, *negatives]
    return {
        "corpus": Dataset.from_dict({"id": ids, "text": texts}),
        "queries": Dataset.from_dict({"id": list(ranked), "text": data.queries}),
        "relevant_docs": relevant,
        "top_ranked": ranked,
    }
