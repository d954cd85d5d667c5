"""Models on tasks: found, checked, scored, compared; every step in MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from boom_ray.config import EvaluateJobConfig, EvaluationConfig, ModelConfig
from boom_ray.errors import ConfigError
from boom_ray.evaluation.benchmarks import check_tasks
from boom_ray.evaluation.hub_data import check_data
from boom_ray.evaluation.results import Scores, read_published, task_scores
from boom_ray.evaluation.runner import evaluate, is_complete
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.evaluate_record import EvaluateRecorder, Published
from boom_ray.flows.ingredients import find_all, find_artifact, with_fingerprints
from boom_ray.flows.inputs import check_sources, with_embedded
from boom_ray.flows.preparing import check_scores, complete_ref, model_ref
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import is_adapter
from boom_ray.store import Artifact, Store


def evaluate_models(config: EvaluateJobConfig, started: float | None = None) -> int:
    """Evaluate the configured models on the configured tasks, and compare them if wanted.

    Args:
        config: models, tasks and what to report.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code 0.

    Raises:
        BoomError: what stopped it, or after everything else is done the tasks that failed.
    """
    began = time.monotonic() if started is None else started
    check_sources(None, config.evaluation)
    store = Store(store_root(config.store))
    refs = find_all(store, config.models)
    names = [ref.name for ref in refs]
    _check_named("card_of", config.card_of, names)
    if not config.results:
        _check_named("baseline", config.baseline, _run_names(config, names))
    corpus = find_artifact(store, config.contamination, "contamination") if config.contamination else None
    with workspace(config.store, config.tracking, config.cluster, ray_later=True) as space:
        resolved = with_embedded(space.store, config, space).evaluation
        published = _published(config.results, resolved, _run_names(config, names))
        _check_named("baseline", config.baseline, [*_run_names(config, names), *(one.name for one in published)])
        models = _models(space, refs, config.model.full())
        if not is_complete(space.store, models, resolved):
            check_tasks(resolved)
            check_data(resolved.tasks)
            space.start_ray()
        recorder = EvaluateRecorder(space, config, models, began)
        if corpus is not None:
            recorder.contamination(_contamination(space, corpus, resolved))
        evaluation = evaluate(space.store, models, resolved, space)
        recorder.finish(resolved, evaluation, _all_scores(space.store, evaluation, published), published)
        check_scores(evaluation)
    return 0


def _contamination(space: Workspace, corpus: Artifact, tasks: EvaluationConfig) -> Artifact:
    from boom_ray.evaluation.contamination import contamination  # imports Ray, which scores in the store do without

    space.start_ray()
    return contamination(space.store, corpus, tasks, report=space)


def _run_names(config: EvaluateJobConfig, names: list[str]) -> list[str]:
    """What models are called in comparisons: by their run, if they have one.

    Raises:
        ConfigError: a run is called as another model is.
    """
    alone = {name for entry, name in zip(config.models, names, strict=True) if entry.run is None}
    clash = next((entry.run for entry in config.models if entry.run in alone), None)
    if clash is not None:
        raise ConfigError(f"models: there is a run {clash}, and a model of that name that is not of it; rename one.")
    return list(dict.fromkeys(entry.run or name for entry, name in zip(config.models, names, strict=True)))


def _check_named(key: str, wanted: str | None, names: list[str]) -> None:
    if wanted is not None and wanted not in names:
        raise ConfigError(f"{key}: there is no model named {wanted}; there are {', '.join(names) or 'none'}.")


def _models(space: Workspace, refs: list[MemberRef], model: ModelConfig) -> list[ModelRef]:
    """The models with their hashes; of plain transformers folders a complete copy is made."""
    inputs = with_fingerprints(space.store, MergeInputs(refs, None, pooling=model.pooling), report=space)
    found = []
    for ref in inputs.members:
        folder = space.store.resolve(ref.path)
        if (folder / "modules.json").exists() and not is_adapter(folder):
            found.append(model_ref(space, ref, model))
        else:
            space.start_ray()
            found.append(complete_ref(space, ref, inputs, model))
    return found


def _published(folders: Sequence[str], config: EvaluationConfig, taken: list[str]) -> list[Published]:
    found: list[Published] = []
    for folder in folders:
        name, scores, missing = read_published(Path(folder).expanduser(), config)
        if name in [*taken, *(one.name for one in found)]:
            raise ConfigError(f"results: {folder} is of {name}, and another model has that name.")
        found.append(Published(name, scores, missing))
    return found


def _all_scores(store: Store, evaluation: Evaluation, published: list[Published]) -> Mapping[str, Scores]:
    return task_scores(store, evaluation.scores) | {one.name: one.scores for one in published}
