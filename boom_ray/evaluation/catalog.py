"""mteb's benchmarks by name, as tasks of a configuration."""

from __future__ import annotations

import difflib
from typing import Any

from boom_ray.config import BenchmarkConfig, EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError


def expand(config: EvaluationConfig) -> EvaluationConfig:
    """The configuration with the tasks of its benchmarks in their groups, and no benchmarks.

    A task that is named already, by the user or by a benchmark before, is not taken again.

    Raises:
        EvaluationError: mteb knows no such benchmark or type, or it has no such task to leave out.
    """
    if not config.benchmarks:
        return config
    groups: dict[str, list[TaskConfig]] = {"in_domain": [*config.in_domain], "out_of_domain": [*config.out_of_domain]}
    known = {task.name for task in config.all_tasks}
    for benchmark in config.benchmarks:
        for task in tasks_of(benchmark):
            if task.name not in known:
                known.add(task.name)
                groups[benchmark.group].append(task)
    return config.model_copy(update={name: tuple(tasks) for name, tasks in groups.items()} | {"benchmarks": ()})


def tasks_of(benchmark: BenchmarkConfig) -> list[TaskConfig]:
    """The text tasks of a benchmark, in mteb's order.

    Raises:
        EvaluationError: see `expand`.
    """
    tasks = list(_find(benchmark.name).tasks)
    _check_known(benchmark.without, [task.metadata.name for task in tasks], f"task in {benchmark.name}", "without")
    _check_known(benchmark.types, [task.metadata.type for task in tasks], f"type in {benchmark.name}", "types")
    return [
        _configured(task)
        for task in tasks
        if task.metadata.name not in benchmark.without
        and (not benchmark.types or task.metadata.type in benchmark.types)
        and "text" in task.metadata.modalities
    ]


def _configured(task: Any) -> TaskConfig:
    """A task of a benchmark, which says which splits and subsets count."""
    first, *more = task.eval_splits
    is_whole = set(task.hf_subsets) == set(task.metadata.hf_subsets)
    return TaskConfig(
        name=task.metadata.name,
        split=first,
        extra_splits=tuple(more),
        subsets=() if is_whole else tuple(sorted(task.hf_subsets)),
    )


def _find(name: str) -> Any:
    import mteb

    known = {one.name: one for one in mteb.get_benchmarks()}
    if name in known:
        return known[name]
    try:
        return mteb.get_benchmark(name)  # aliases and families
    except (KeyError, ValueError) as error:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known)[:12])}…"
        raise EvaluationError(f"mteb {mteb.__version__} has no benchmark {name}; {hint}") from error


def _check_known(wanted: tuple[str, ...], known: list[str], what: str, key: str) -> None:
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(set(known)), n=3, cutoff=0.4) or sorted(set(known))[:8]
        raise EvaluationError(
            f"evaluation.benchmarks.{key}: there is no {what} named {unknown[0]}; near: {', '.join(near)}."
        )
