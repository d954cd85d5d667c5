"""The evaluation stage: models × tasks → scores. What the store has is not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.benchmarks import score_inputs, task_sizes, task_spec, with_prompts
from boom_ray.evaluation.routed import check_model
from boom_ray.evaluation.schedule import Job
from boom_ray.evaluation.scores import GROUPS, Evaluation, Failure, Group, ModelRef, Score
from boom_ray.events import Event, Report, silent
from boom_ray.store import Store, artifact_key

if TYPE_CHECKING:
    from boom_ray.evaluation.crew import Crew


class Pair(NamedTuple):
    """A model and a task, and what determines the score besides the model's files."""

    model: ModelRef
    task: TaskConfig
    spec: dict[str, Any]

    @property
    def names(self) -> tuple[str, str]:
        """Of the model and the task."""
        return self.model.name, self.task.name


@dataclass(frozen=True)
class Known:
    """What the store has of the scores that are wanted.

    Attributes:
        config: the tasks.
        pairs: all that are wanted.
        found: scores that are there, by names.
    """

    config: EvaluationConfig
    pairs: tuple[Pair, ...]
    found: Mapping[tuple[str, str], Score]

    @property
    def missing(self) -> list[Pair]:
        """Pairs without a score."""
        return [pair for pair in self.pairs if pair.names not in self.found]

    @property
    def missing_tasks(self) -> list[TaskConfig]:
        """Their tasks, each once: the data of others is not needed."""
        return list({pair.task.name: pair.task for pair in self.missing}.values())

    @property
    def hashes(self) -> dict[str, dict[str, str]]:
        """Of the files of tasks that have some, by task and file."""
        return {pair.task.name: pair.spec["data"] for pair in self.pairs if "data" in pair.spec}


def evaluate(store: Store, models: Sequence[ModelRef], config: EvaluationConfig, report: Report = silent) -> Evaluation:
    """Evaluate every model on every task, on Ray actors; needs a running cluster only if a score is missing.

    A task that fails is in ``failures`` and does not affect the others.

    Args:
        store: holds one artifact of kind ``scores`` per pair, with mteb's own result file.
        models: what to evaluate.
        config: the tasks and how to run them.
        report: hears one event when a pair starts and one when it ends, and how much of all is done.

    Raises:
        EvaluationError: a task's data is faulty, or two models have one name; raised before a model is loaded.
        ModelError: a model's folder cannot be used; likewise.
    """
    return complete(store, look_up(store, models, config), report)


def look_up(store: Store, models: Sequence[ModelRef], config: EvaluationConfig) -> Known:
    """Look for all scores in the store; every file of a task is read once for that, however many models there are.

    Raises:
        EvaluationError: two models have one name, or a file of a task does not exist.
    """
    _check_names(models)
    specs = {task.name: task_spec(task, config) for task in config.tasks}
    pairs = [
        Pair(model, task, with_prompts(specs[task.name], model, task)) for model in models for task in config.tasks
    ]
    scores = {pair.names: _cached(store, pair, config) for pair in pairs}
    return Known(config, tuple(pairs), {names: score for names, score in scores.items() if score is not None})


def complete(
    store: Store,
    known: Known,
    report: Report = silent,
    sizes: Mapping[str, int] | None = None,
    crew: Crew | None = None,
) -> Evaluation:
    """Compute the scores that are missing; `evaluate` for those who have looked already.

    Args:
        store: see `evaluate`.
        known: what `look_up` gave.
        report: see `evaluate`.
        sizes: what `task_sizes` says of the tasks, if they are checked already.
        crew: actors that were started already, in vain if nothing is missing.

    Raises:
        EvaluationError: see `evaluate`.
        ModelError: likewise.
    """
    for (model, task), score in known.found.items():
        report(Event("scores", f"{model}/{task}", 1, 1, {"score": score.value}, "cached"))
    found = dict(known.found)
    failures = _compute(store, known, report, sizes, crew, found) if known.missing else []
    return Evaluation(tuple(found[pair.names] for pair in known.pairs if pair.names in found), tuple(failures))


def _check_names(models: Sequence[ModelRef]) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"Models must have different names; used twice: {', '.join(twice)}.")


def _cached(store: Store, pair: Pair, config: EvaluationConfig) -> Score | None:
    artifact = store.get("scores", artifact_key("scores", pair.spec, score_inputs(pair.model)))
    return _score(pair.model, pair.task, config, artifact.key, artifact.figures, True) if artifact else None


def _compute(
    store: Store,
    known: Known,
    report: Report,
    sizes: Mapping[str, int] | None,
    crew: Crew | None,
    found: dict[tuple[str, str], Score],
) -> list[Failure]:
    """Fill ``found`` with the scores of all missing pairs; return what failed."""
    sizes = task_sizes(known.missing_tasks, known.config.seed, known.hashes) if sizes is None else sizes
    for path in {pair.model.path for pair in known.missing}:
        check_model(store.resolve(path))
    from boom_ray.evaluation.pool import run_jobs  # imports Ray, which a fully cached evaluation does without

    jobs = [
        Job(pair.model, pair.task, pair.spec, score_inputs(pair.model), sizes[pair.task.name]) for pair in known.missing
    ]
    failures = []
    for outcome in run_jobs(store, jobs, known.config, report, crew):
        model, task = outcome.job.model, outcome.job.task
        if outcome.figures is None:
            failures.append(Failure(model.name, task.name, outcome.error))
        else:
            found[model.name, task.name] = _score(model, task, known.config, outcome.key, outcome.figures, False)
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
