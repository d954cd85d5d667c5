"""The last words of a job: scores as tables, where the model is, how to load it and how to see the runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boom_ray.errors import ConfigError
from boom_ray.evaluation.report import Row
from boom_ray.evaluation.scores import GROUPS
from boom_ray.flows.workspace import Workspace
from boom_ray.progress import render_table
from boom_ray.store import Store

MODELS = "models"
BASELINE_NOTE = "100 % = batch-level shuffling"


def check_link(store: Store, name: str) -> None:
    """Check that `link_model` will be able to, before there is work to lose.

    Raises:
        ConfigError: something else has the place of the link.
    """
    link = Path(store.root) / MODELS / name
    if store.is_local and link.exists() and not link.is_symlink():
        raise ConfigError(
            f"{link} is where the link to the merged model belongs, and something else is there. Move it away, or "
            f"give the run another name."
        )


def link_model(store: Store, folder: Path, name: str) -> Path:
    """A path that people can remember, ``<store>/models/<name>``, where the store is a directory; else the folder.

    Raises:
        ConfigError: something else is there; nothing was changed.
    """
    if not store.is_local:
        return folder
    check_link(store, name)
    link = Path(store.root) / MODELS / name
    link.parent.mkdir(exist_ok=True)
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(os.path.relpath(folder, link.parent))
        fresh.replace(link)
    finally:
        fresh.unlink(missing_ok=True)
    return link


def linked_model(store: Store, name: str) -> str:
    """Fingerprint of the merged model that `link_model`'s path shows; empty if there is none."""
    link = Path(store.root) / MODELS / name
    shown = link.resolve().parent if store.is_local and link.is_symlink() else None
    found = store.get(shown.parent.name, shown.name) if shown is not None else None
    return "" if found is None else found.fingerprint


def say_summary(
    space: Workspace, rows: Sequence[Row], folder: Path, started: float, baseline: str | None = None
) -> None:
    """Print scores, then where things are.

    Args:
        space: where to print, and what was used.
        rows: scores, see `boom_ray.evaluation.report.table`.
        folder: the merged model.
        started: when the job began, by ``time.monotonic``; seconds.
        baseline: name of the model trained on all data, if there is one.
    """
    if rows:
        say_table(space, [means(row, baseline) for row in rows], "Scores, mean over tasks (100 = perfect)")
        say_table(space, by_task(rows), "Scores by task")
    else:
        space.progress.say("No scores: the configuration has no evaluation tasks.")
    lines = [
        f"The merged model: {folder}",
        "    from sentence_transformers import SentenceTransformer",
        f'    model = SentenceTransformer("{folder}")',
        '    print(model.encode(["how do I sort a list?"]).shape)',
        f"Every step in MLflow: {space.tracker.how_to_open()}",
        f"All artifacts: {space.store.root}; the same command again computes only what is missing.",
        f"Took {time.monotonic() - started:.0f} s.",
    ]
    space.progress.say("\n".join(lines))


def say_table(space: Workspace, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print a table with air around it."""
    space.progress.say("")
    render_table(rows, title, space.progress.console)
    space.progress.say("")


def means(row: Row, baseline: str | None = None) -> dict[str, str | float]:
    """A model's means in percent; the baseline says what it is."""
    name = str(row["model"])
    result: dict[str, str | float] = {"model": f"{name} ({BASELINE_NOTE})" if name == baseline else name}
    for group in GROUPS:
        value = row.get(group)
        if isinstance(value, float):
            result[group.replace("_", "-")] = round(value * 100, 2)
    return result


def by_task(rows: Sequence[Row]) -> list[dict[str, str | float]]:
    """One row per task, one column per model, in percent."""
    tasks = [key for key in rows[0] if key not in {"model", *GROUPS}] if rows else []
    return [
        {"task": task}
        | {str(row["model"]): round(value * 100, 2) for row in rows if isinstance(value := row[task], float)}
        for task in tasks
    ]
