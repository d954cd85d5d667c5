"""The texts of all evaluation tasks that must not be trained on: from folders, and from mteb where it has them here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import HeldOut, read_folder

Found: TypeAlias = list[HeldOut] | str  # the texts, or why there are none
LONGEST_REASON = 200  # characters


def near_texts(config: EvaluationConfig) -> dict[str, list[str]]:
    """The texts that ingest looks for near-duplicates of, by task; see `evaluation_texts` for which they are.

    Raises:
        EvaluationError: a folder is faulty.
    """
    return {task.name: list(read_folder(task).judged()) for task in config.all_tasks if task.path is not None}


def read_folders(config: EvaluationConfig) -> dict[str, Found]:
    """The texts of the tasks that have a folder, by name.

    Raises:
        EvaluationError: a folder is faulty.
    """
    return {task.name: list(read_folder(task).held_out()) for task in config.all_tasks if task.path is not None}


def read_named(tasks: Sequence[TaskConfig]) -> dict[str, Found]:
    """The texts of mteb's own tasks, by name, or why they could not be read; may ask the hub for them."""
    from boom_ray.evaluation.local_tasks import named_task  # imports mteb

    found: dict[str, Found] = {}
    for task in tasks:
        try:
            loaded = named_task(task, seed=0)
            loaded.load_data()
            found[task.name] = list(texts_of(loaded, [task.split, *task.extra_splits]))
        except Exception as error:  # loaders and data sets raise whatever they like; one must not lose the others
            cause = str(error) if isinstance(error, EvaluationError) else f"{type(error).__name__}: {error}"
            found[task.name] = f"its data cannot be read on this machine: {' '.join(cause.split())}"[:LONGEST_REASON]
    return found


def texts_of(task: Any, splits: Sequence[str]) -> Iterator[HeldOut]:
    """The texts of an mteb task whose data is loaded, as `FolderData` gives those of a folder.

    Args:
        task: an `AbsTask`.
        splits: what of it counts.

    Raises:
        EvaluationError: it has no text, or it is of a type whose texts are not known.
    """
    found: list[HeldOut] = []
    for part in _parts(task, splits):
        is_retrieval = isinstance(part, dict) and "relevant_docs" in part
        found += _judged(part) if is_retrieval else _texts(part, _columns(task))
    if not found:
        raise EvaluationError(f"mteb's task {task.metadata.name} has no text in {', '.join(splits)}.")
    yield from found


def _parts(task: Any, splits: Sequence[str]) -> Iterator[Any]:
    """The data of every subset and split; mteb keeps that of a task without subsets one level higher."""
    for name, data in task.dataset.items():
        if name in splits and not any(split in data for split in splits):
            yield data
        else:
            yield from (data[split] for split in splits if split in data)


def _judged(data: dict[str, Any]) -> Iterator[HeldOut]:
    """Queries and relevant passages of a retrieval or reranking task."""
    for text in data["queries"]["text"]:
        yield HeldOut("queries", (str(text),))
    relevant = {key for scores in data["relevant_docs"].values() for key, score in scores.items() if score > 0}
    for passage in data["corpus"]:
        if passage["id"] in relevant:
            title, text = passage.get("title") or "", passage["text"]
            yield HeldOut("passages", (text, f"{title} {text}") if title else (text,))


def _texts(data: Any, columns: Sequence[str]) -> Iterator[HeldOut]:
    for column in columns:
        for value in data[column]:
            for text in value if isinstance(value, list) else [value]:
                yield HeldOut("texts", (str(text),))


def _columns(task: Any) -> list[str]:
    """Where a task without passages has its texts, by the attributes with which mteb's types name their columns."""
    names = [
        getattr(task, attribute, None)
        for attribute in ("input_column_name", "input1_column_name", "input2_column_name", "text_column_name")
    ]
    found = [name for name in (*names, *getattr(task, "column_names", ())) if isinstance(name, str)]
    if not found and task.metadata.type == "BitextMining" and not getattr(task, "parallel_subsets", False):
        found = ["sentence1", "sentence2"]
    if not found:
        raise EvaluationError(f"the columns with the texts of mteb's type {task.metadata.type} are not known")
    return found
