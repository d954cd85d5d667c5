"""Models on tasks: found, checked, scored, compared; every step in MLflow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from boom_ray.config import EvaluateJobConfig, EvaluationConfig, ModelConfig, TaskConfig
from boom_ray.errors import ConfigError
from boom_ray.evaluation.benchmarks import task_sizes
from boom_ray.evaluation.crew import Crew
from boom_ray.evaluation.hub_data import check_data
from boom_ray.evaluation.results import Scores, read_published, task_scores
from boom_ray.evaluation.routed import is_routed
from boom_ray.evaluation.runner import complete, look_up
from boom_ray.evaluation.scores import Evaluation, ModelRef
from boom_ray.flows.evaluate.domains import corpus_domains
from boom_ray.flows.evaluate.record import EvaluateRecorder, Published, check_compared
from boom_ray.flows.ingredients import find_all, find_artifact, with_fingerprints
from boom_ray.flows.inputs import check_sources, with_embedded
from boom_ray.flows.preparing import check_scores, complete_ref, model_ref
from boom_ray.flows.workspace import Workspace, store_root, workspace
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import is_adapter
from boom_ray.runtime import cluster
from boom_ray.store import Artifact, Store

MANY = 1 << 20
"""Tasks of a benchmark, before mteb is asked: as many actors as fit."""


def evaluate_models(config: EvaluateJobConfig, started: float | None = None) -> int:
    """Evaluate the configured models on the configured tasks, and compare them if wanted.

    Args:
        config: models, tasks and what to report.
        started: when the job began, by ``time.monotonic``; now by default.

    Returns:
        Exit code 0.

    Raises:
        BoomError: what stopped it, or after everything else is done the tasks that failed, or what cannot be compared.
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
    with (
        _crew(store, config, refs) as crew,
        workspace(config.store, config.tracking, config.cluster, ray_later=True) as space,
    ):
        resolved = with_embedded(space.store, config, space).evaluation
        published = _published(config.results, resolved, _run_names(config, names))
        _check_named("baseline", config.baseline, [*_run_names(config, names), *(one.name for one in published)])
        models = _models(space, refs, config.model.full())
        known, sizes = look_up(space.store, models, resolved), None
        if known.missing:
            space.start_ray()
            if corpus is None:  # Ray's tasks that read it need the CPUs first
                crew.start(len(known.missing), _are_folders(pair.task for pair in known.missing))
            sizes = task_sizes(resolved.all_tasks, resolved.seed, known.hashes)
            check_data(known.missing_tasks)
        recorder = EvaluateRecorder(space, config, models, began)
        if corpus is not None:
            recorder.domains(corpus_domains(space, corpus, resolved))
            recorder.contamination(_contamination(space, corpus, resolved))
        evaluation = complete(space.store, known, space, sizes, crew)
        impossible = recorder.finish(resolved, evaluation, _all_scores(space.store, evaluation, published), published)
        check_scores(evaluation)
        check_compared(impossible)
    return 0


@contextlib.contextmanager
def _crew(store: Store, config: EvaluateJobConfig, refs: Sequence[MemberRef]) -> Iterator[Crew]:
    """Actors, started at once where there are certainly scores to compute, for they take longest to be ready."""
    jobs = _certain_jobs(store, config, refs)
    with contextlib.ExitStack() as stack:
        if jobs:
            stack.enter_context(cluster(config.cluster))
        crew = stack.enter_context(Crew(store, config.evaluation))
        if jobs:
            crew.start(jobs, not config.evaluation.benchmarks and _are_folders(config.evaluation.tasks))
        yield crew


def _certain_jobs(store: Store, config: EvaluateJobConfig, refs: Sequence[MemberRef]) -> int:
    """How many scores a local store lacks for sure, because it has none; 0 if other work needs the CPUs first."""
    is_new = store.is_local and not any(Path(store.root).glob("scores/*"))
    if not is_new or config.contamination is not None or not all(_is_complete(store, ref) for ref in refs):
        return 0
    return len(refs) * (MANY if config.evaluation.benchmarks else len(config.evaluation.tasks))


def _are_folders(tasks: Iterable[TaskConfig]) -> bool:
    return all(task.path is not None for task in tasks)


def _is_complete(store: Store, ref: MemberRef) -> bool:
    """Whether a model can be evaluated as it is, and no complete copy must be made."""
    folder = store.resolve(ref.path)
    return (folder / "modules.json").exists() and not is_adapter(folder)


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
    folders = {ref.name: space.store.resolve(ref.path) for ref in refs}
    plain = [ref for ref in refs if not is_routed(folders[ref.name])]
    inputs = with_fingerprints(space.store, MergeInputs(plain, None, pooling=model.pooling), report=space)
    hashed = {ref.name: ref for ref in inputs.members}
    found = []
    for ref in refs:
        if ref.name not in hashed:
            found.append(ModelRef.of(ref.name, folders[ref.name], model))
        elif _is_complete(space.store, ref):
            found.append(model_ref(space, hashed[ref.name], model))
        else:
            space.start_ray()
            found.append(complete_ref(space, hashed[ref.name], inputs, model))
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
