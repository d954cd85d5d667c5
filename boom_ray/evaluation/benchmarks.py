"""Which tasks are evaluated: checked before hours of work, identified for the cache, and their texts for ingest."""

from __future__ import annotations

import difflib
import importlib.metadata
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import read_folder, task_files
from boom_ray.evaluation.named_sizes import characters
from boom_ray.evaluation.proxies import VERSION, load_data
from boom_ray.evaluation.schedule import UNKNOWN_SIZE
from boom_ray.evaluation.scores import ModelRef
from boom_ray.hashing import U64, file_digest, normalized_text_key

EMBEDDER = 2  # raise it when the same model's embeddings come out otherwise
log = logging.getLogger(__name__)


def check_tasks(config: EvaluationConfig) -> None:
    """Check everything about the tasks that can be checked without a model.

    Raises:
        EvaluationError: names file and line of every faulty folder, and every task that mteb does not know.
    """
    task_sizes(config.all_tasks, config.seed)


def task_sizes(
    tasks: Iterable[TaskConfig], seed: int = 0, hashes: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, int]:
    """Characters that each task makes a model encode, checking the tasks on the way.

    mteb's own have those that its statistics say, and `UNKNOWN_SIZE` where it has none.

    Args:
        tasks: what to check.
        seed: which rows proxies have; to tell what is large, any will do.
        hashes: task to hashes of its files, of those that are known; see `load_data`.

    Raises:
        EvaluationError: see `check_tasks`.
    """
    sizes: dict[str, int] = {}
    faults: list[str] = []
    for task in tasks:
        try:
            known = (hashes or {}).get(task.name)
            sizes[task.name] = _check_named(task) if task.path is None else _check_folder(task, seed, known)
        except EvaluationError as error:
            faults.append(str(error))
    if faults:
        raise EvaluationError("\n".join(faults))
    return sizes


def _check_folder(task: TaskConfig, seed: int, hashes: Mapping[str, str] | None) -> int:
    return sum(map(len, load_data(task, seed, hashes).encoded()))


def _check_named(task: TaskConfig) -> int:
    import mteb
    from mteb.get_tasks import TASK_LIST

    cls = {cls.metadata.name: cls for cls in TASK_LIST}.get(task.name)
    if cls is None:
        near = difflib.get_close_matches(task.name, [cls.metadata.name for cls in TASK_LIST], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "mteb.get_tasks() lists all it has."
        raise EvaluationError(
            f"mteb {mteb.__version__} has no task {task.name}; {hint} A folder of your own needs a path."
        )
    found = cls.metadata
    wrong = next((split for split in (task.split, *task.extra_splits) if split not in found.eval_splits), None)
    if wrong is not None:
        splits = ", ".join(found.eval_splits)
        raise EvaluationError(f"mteb's task {task.name} has no split {wrong}; set split to one of: {splits}.")
    unknown = set(task.subsets) - set(found.hf_subsets)
    if unknown:
        known = ", ".join(found.hf_subsets)
        raise EvaluationError(f"mteb's task {task.name} has no subset {min(unknown)}; set subsets to some of: {known}.")
    size = characters(cls, (task.split, *task.extra_splits), task.subsets)
    return UNKNOWN_SIZE if size is None else size


def score_spec(model: ModelRef, task: TaskConfig, config: EvaluationConfig) -> dict[str, Any]:
    """Exactly what determines a score besides the model's own files; quick, and without mteb.

    Raises:
        EvaluationError: see `task_spec`.
    """
    return with_prompts(task_spec(task, config), model, task)


def task_spec(task: TaskConfig, config: EvaluationConfig) -> dict[str, Any]:
    """What of it is the same for all models; reads all files of a folder, to hash them.

    The content of a folder counts, not its place. mteb's version fixes the revision of its own tasks' data.

    Raises:
        EvaluationError: the folder or one of its files does not exist.
    """
    spec: dict[str, Any] = {
        "task": task.name,
        "split": task.split,
        "seed": config.seed,
        "precision": config.precision,
        "mteb": importlib.metadata.version("mteb"),
        "embedder": EMBEDDER,
    }
    if task.path is not None:
        spec |= {"type": task.type, "language": task.language, "data": _digests(task)}
    if task.subsets:
        spec["subsets"] = sorted(task.subsets)
    if task.extra_splits:
        spec["extra_splits"] = sorted(task.extra_splits)
    if task.type == "sts":
        spec["score_range"] = list(task.score_range)
    if task.type == "clustering":
        spec["max_clustered"] = task.max_clustered
    if task.size is not None:
        spec["proxy"] = {"size": task.size, "version": VERSION}
    return spec


def with_prompts(spec: dict[str, Any], model: ModelRef, task: TaskConfig) -> dict[str, Any]:
    """The `score_spec` of a model from a task's `task_spec`."""
    if not model.has_templates:
        return spec
    templates = [model.query_template, model.passage_template]
    return spec | {"prompts": [*templates, task.instruction, task.passage_instruction]}


def score_inputs(model: ModelRef) -> dict[str, Any]:
    """What a score is made from: the weights, and all else that determines the model's embeddings."""
    return {"weights": model.fingerprint, "prompts": model.prompts_digest}


def _digests(task: TaskConfig) -> dict[str, str]:
    try:
        return {path.name: file_digest(path) for path in task_files(task)}
    except FileNotFoundError as error:
        raise EvaluationError(f"Task {task.name}: {error.filename} does not exist.") from error


def evaluation_texts(config: EvaluationConfig) -> dict[str, U64]:
    """Keys of the texts that must not be trained on, sorted, by task.

    Those of a retrieval or reranking task are its queries and relevant passages, those of every other task all its
    texts. mteb's own tasks are left out with a warning: their data may not be on this machine.

    Returns:
        Task name to uint64 array, see `boom_ray.hashing.normalized_text_key`.

    Raises:
        EvaluationError: a folder is faulty.
    """
    named = [task.name for task in config.all_tasks if task.path is None]
    if named:
        log.warning(
            "The texts of mteb's own tasks are not compared with the training data: %s. jobs/evaluate.py does that "
            "with contamination: artifact:corpus/KEY.",
            ", ".join(named),
        )
    return {task.name: _text_keys(task) for task in config.all_tasks if task.path is not None}


def _text_keys(task: TaskConfig) -> U64:
    keys = {normalized_text_key(text) for text in read_folder(task).judged()}
    return np.sort(np.fromiter(keys, dtype=np.uint64, count=len(keys)))
