"""The evaluation stage: models × tasks → scores. What the store has is not computed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.benchmarks import score_inputs, score_spec, task_sizes
from boom_ray.evaluation.schedule import Job
from boom_ray.evaluation.scores import GROUPS, Evaluation, Failure, Group, ModelRef, Score
from boom_ray.events import Event, Report, silent
from boom_ray.model.folder import check_folder
from boom_ray.store import Store, artifact_key


def evaluate(store: Store, models: Sequence[ModelRef], config: EvaluationConfig, report: Report = silent) -> Evaluation:
    """Evaluate every model on every task, on Ray actors; needs a running cluster only if a score is missing.

    A task that fails is in ``failures`` and does not affect the others.

    Args:
        store: holds one artifact of kind ``scores`` per pair, with mteb's own result file.
        models: what to evaluate.
        config: the tasks and how to run them.
        report: hears one event when a pair starts and one when it ends.

    Raises:
        EvaluationError: a task's data is faulty, or two models have one name; raised before a model is loaded.
        ModelError: a model's folder cannot be used; likewise.
    """
    _check_names(models)
    pairs = [(model, task) for model in models for task in config.tasks]
    specs = [score_spec(model, task, config) for model, task in pairs]
    found: dict[tuple[str, str], Score] = {}
    missing: list[tuple[ModelRef, TaskConfig, dict[str, Any]]] = []
    for (model, task), spec in zip(pairs, specs, strict=True):
        score = _cached(store, model, task, spec, config)
        if score is None:
            missing.append((model, task, spec))
            continue
        found[model.name, task.name] = score
        report(Event("scores", f"{model.name}/{task.name}", 1, 1, {"score": score.value}, "cached"))
    failures = _compute(store, missing, config, report, found) if missing else []
    order = [(model.name, task.name) for model, task in pairs]
    return Evaluation(tuple(found[pair] for pair in order if pair in found), tuple(failures))


def is_complete(store: Store, models: Sequence[ModelRef], config: EvaluationConfig) -> bool:
    """Whether the store has every score."""
    return all(
        _cached(store, model, task, score_spec(model, task, config), config) is not None
        for model in models
        for task in config.tasks
    )


def _check_names(models: Sequence[ModelRef]) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"Models must have different names; used twice: {', '.join(twice)}.")


def _cached(
    store: Store, model: ModelRef, task: TaskConfig, spec: dict[str, Any], config: EvaluationConfig
) -> Score | None:
    artifact = store.get("scores", artifact_key("scores", spec, score_inputs(model)))
    return _score(model, task, config, artifact.key, artifact.figures, True) if artifact else None


def _compute(
    store: Store,
    missing: Sequence[tuple[ModelRef, TaskConfig, dict[str, Any]]],
    config: EvaluationConfig,
    report: Report,
    found: dict[tuple[str, str], Score],
) -> list[Failure]:
    """Fill ``found`` with the scores of all missing pairs; return what failed."""
    sizes = task_sizes({task.name: task for _, task, _ in missing}.values(), config.seed)
    for path in {model.path for model, _, _ in missing}:
        check_folder(store.resolve(path))
    from boom_ray.evaluation.pool import run_jobs  # imports Ray, which a fully cached evaluation does without

    jobs = [Job(model, task, spec, score_inputs(model), sizes[task.name]) for model, task, spec in missing]
    failures = []
    for outcome in run_jobs(store, jobs, config, report):
        model, task = outcome.job.model, outcome.job.task
        if outcome.figures is None:
            failures.append(Failure(model.name, task.name, outcome.error))
        else:
            found[model.name, task.name] = _score(model, task, config, outcome.key, outcome.figures, False)
    return sorted(failures, key=lambda failure: (failure.model, failure.task))


def _score(
    model: ModelRef, task: TaskConfig, config: EvaluationConfig, key: str, figures: dict[str, Any], cached: bool
) -> Score:
    group: Group = GROUPS[0] if task in config.in_domain else GROUPS[1]
    return Score(
        model=model.name,
        task=task.name,
        type=figures["type"],
        group=group,
        metric=figures["metric"],
        value=figures["score"],
        seconds=figures["seconds"],
        cached=cached,
        key=key,
    )
