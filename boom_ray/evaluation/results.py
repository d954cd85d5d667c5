"""Scores in the store as what comparisons need, and to and from mteb's folders of result files."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.comparison import TaskScore
from boom_ray.evaluation.queries import FILE, read_queries
from boom_ray.evaluation.routed import is_routed
from boom_ray.evaluation.scores import GROUPS, Group, ModelRef, Score
from boom_ray.model.folder import modules, read_json, transformer_dir
from boom_ray.store import Artifact, Store

META = "model_meta.json"
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
Scores = dict[str, TaskScore]
log = logging.getLogger(__name__)


def task_scores(store: Store, scores: Sequence[Score]) -> dict[str, Scores]:
    """Model to task to score, with the values of single queries."""
    found: dict[str, Scores] = {}
    for score in scores:
        queries = read_queries(_artifact(store, score).local())
        one = TaskScore(score.task, score.type, score.group, score.value, queries, score.metric)
        found.setdefault(score.model, {})[score.task] = one
    return found


def used_prompts(store: Store, score: Score) -> dict[str, str]:
    """What stood before the texts, by role: ``query``, ``document`` or ``text``."""
    return dict(_artifact(store, score).figures["prompts"])


def prompt_warnings(model: str, task: TaskConfig, used: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    """Where a task's prompts differ from those that the model was trained with, as far as its folder says.

    Args:
        model: its name.
        task: the task; ``overlaps`` names the datasets whose prompts it should have.
        used: as `used_prompts` gives it.
        stored: prompts in the model's folder: ``query``, ``document`` (or ``passage``, ``corpus``; documents have none
            if it is not there), and of datasets by their names.
    """
    datasets = [name for name in (*task.overlaps, task.name) if name in stored]
    warnings = []
    passage = next((stored[name] for name in DOCUMENT_PROMPTS if name in stored), "")  # as `Encoder` looks it up
    for role, prompt in used.items():
        if role == "document":
            known = {stored.get(f"{name}-document", passage) for name in datasets} or {passage}
        elif "query" in stored or not stored:
            known = {stored[name] for name in datasets} or {stored.get("query", "")}
        else:
            known = {stored[name] for name in datasets} or set(stored.values())
        if prompt not in known:
            expected = " or ".join(repr(one) for one in sorted(known)[:3])
            warnings.append(
                f"{model} on {task.name}: {role} texts begin with {prompt!r}; it was trained with {expected}."
            )
    return warnings


def export(store: Store, models: Sequence[ModelRef], scores: Sequence[Score], target: Path) -> list[Path]:
    """Write mteb's result files as mteb's own tools read them: ``MODEL/REVISION/TASK.json`` and ``model_meta.json``.

    Args:
        store: holds them.
        models: the models.
        scores: theirs.
        target: folder; what it has of other models stays.

    Returns:
        A folder per model.
    """
    folders = []
    for model in models:
        folder = target / model.name / model.fingerprint[:16]
        folder.mkdir(parents=True, exist_ok=True)
        for score in scores:
            if score.model == model.name:
                for path in sorted(_artifact(store, score).local().glob("*.json")):
                    if path.name not in {FILE, "artifact.json"}:
                        shutil.copyfile(path, folder / path.name)
        _write_meta(store, model, folder)
        folders.append(folder)
    return folders


def _write_meta(store: Store, model: ModelRef, folder: Path) -> None:
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    place = store.resolve(model.path)
    name = model.name if "/" in model.name else f"boom_ray/{model.name}"
    facts: dict[str, Any] = {"name": name, "revision": model.fingerprint[:16], "embed_dim": _width(place)}
    facts |= {"similarity_fn_name": ScoringFunction.COSINE, "framework": ["Sentence Transformers", "PyTorch"]}
    meta = ModelMeta.create_empty(overwrites=facts)
    (folder / META).write_text(json.dumps(meta.to_dict(), indent=1, default=str), encoding="utf-8")


def _width(place: Path) -> int | None:
    """Of a model's embeddings, if its folder says it in one place."""
    dense = [read_json(module.path / "config.json") for module in modules(place) if module.kind == "Dense"]
    if dense:
        return int(dense[-1]["out_features"])
    return None if is_routed(place) else read_json(transformer_dir(place) / "config.json").get("hidden_size")


def read_published(folder: Path, config: EvaluationConfig) -> tuple[str, Scores, list[str]]:
    """A published model's scores on the configured tasks, from mteb's result files.

    Args:
        folder: with ``model_meta.json`` and a file per task, or such folders in it (models and revisions).
        config: the tasks.

    Returns:
        The model's name, task to score, and tasks it has no result of.

    Raises:
        EvaluationError: there are no results, results of several models, or a file that cannot be read.
    """
    places = sorted(path.parent for path in folder.rglob(META))
    if len(places) != 1:
        what = "holds no model_meta.json" if not places else f"holds results of {len(places)} models or revisions"
        raise EvaluationError(f"{folder} {what}; give the one folder with the {META} and the result files.")
    try:
        name = str(json.loads((places[0] / META).read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError) as error:
        raise EvaluationError(f"{places[0] / META} cannot be read: {error!r}.") from error
    found: Scores = {}
    missing = []
    for group in GROUPS:
        for task in getattr(config, group):
            path = places[0] / f"{task.name}.json"
            score = _published(path, task, group) if path.exists() else None
            if score is None:
                missing.append(task.name)
            else:
                found[task.name] = score
    if not found:
        raise EvaluationError(f"{places[0]} has results of none of the tasks, e.g. {missing[0]}.json is not there.")
    return name, found, missing


def _published(path: Path, task: TaskConfig, group: Group) -> TaskScore | None:
    """The score on the configured splits and subsets, all that mteb has if none are; None if the file lacks one.

    A file that was made from another revision of the data than the installed mteb has is warned about.
    """
    import mteb
    from mteb.results import TaskResult

    try:
        result = TaskResult.from_disk(path)
    except Exception as error:  # whatever mteb and pydantic raise for a file of another form
        raise EvaluationError(f"{path} cannot be read as a result file of mteb: {error}") from error
    every: Sequence[str] = ()
    if task.path is None:
        metadata = mteb.get_task(task.name).metadata
        every = metadata.hf_subsets
        if result.dataset_revision != metadata.revision:
            log.warning(
                "%s is of revision %s of the data, mteb %s has %s; its score may not be comparable.",
                *(path, result.dataset_revision, mteb.__version__, metadata.revision),
            )
    splits = [task.split, *task.extra_splits]
    values: list[float] = []
    for split in splits:
        own = {one["hf_subset"]: one["main_score"] for one in result.scores.get(split, [])}
        wanted = task.subsets or every or tuple(own)
        if not own or any(subset not in own for subset in wanted):
            return None
        values += [float(own[subset]) for subset in wanted]
    kind, metric = _form(task)
    return TaskScore(task.name, kind, group, sum(values) / len(values), None, metric)


def _form(task: TaskConfig) -> tuple[str, str]:
    """Type and main score of a task, as mteb calls them."""
    import mteb

    from boom_ray.evaluation.local_tasks import FORMS

    if task.type is not None:
        return FORMS[task.type][1:3]
    metadata = mteb.get_task(task.name).metadata
    return str(metadata.type), str(metadata.main_score)


def _artifact(store: Store, score: Score) -> Artifact:
    found = store.get("scores", score.key)
    if found is None:
        raise EvaluationError(f"The score of {score.model} on {score.task} is gone from the store {store.root}.")
    return found
