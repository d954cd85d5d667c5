"""Whether quick proxies rank close models as the whole tasks do, and how much time they save.

    python benchmarks/proxies.py --store DIR [--models 12] [--sizes 64 256 1024] [--tasks stsb scifact wikiqa:reranking]
                                 [--members DIR] [--base MODEL] [--data ../shared/data] [--json FILE]

Every model is evaluated on every task and on its proxies, each in a fresh evaluator on ``--threads`` threads, without
Ray. ``--members`` is searched for model folders (a store's ``member`` folder, say); merges of them at different
weights fill up to ``--models``. Without it, members are copies of ``--base`` with noise (`proxy_models`). Scores and
merges are kept in the store, so a second call goes on where the first one ended; times are those of the evaluations.

Printed and written as JSON: for each task and size, and for the mean over tasks, Spearman's and Kendall's rank
correlation of proxy and whole task over the models; how far apart the models are on the whole task (ranks of models
that differ widely are easily kept); what the best model by proxy lacks to the best by the whole task; seconds, the
median over models, and the speed-up.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import boom_ray.runtime  # noqa: F401  (sets the environment)

import numpy as np  # isort: skip
from proxy_models import LEVELS, models
from scipy.stats import kendalltau, spearmanr

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.evaluation.benchmarks import check_tasks, score_inputs, score_spec
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.proxies import load_data, proxy_of
from boom_ray.evaluation.scores import ModelRef
from boom_ray.model.folder import find_folder
from boom_ray.store import Store, artifact_key

SHARED = Path(__file__).parents[2] / "shared" / "data"
TASKS = ("stsb", "mqp", "scifact", "conala", "wikiqa:reranking", "trec6", "banking77", "clu_20news")
TYPES = {"duplicates": "reranking", "reranking+retrieval": "retrieval"}
MEAN = "mean over tasks"
Figures = dict[str, Any]


def task_of(name: str, data: Path) -> TaskConfig:
    """The task of a folder of ``data``, of the type that its ``meta.json`` tells unless NAME:TYPE does."""
    folder, _, told = name.partition(":")
    kind = told or json.loads((data / folder / "meta.json").read_text(encoding="utf-8"))["task"]
    return TaskConfig.model_validate(
        {"name": name.replace(":", "-"), "path": str(data / folder), "type": TYPES.get(kind, kind)}
    )


def score(store: Store, config: EvaluationConfig, model: ModelRef, tasks: Sequence[TaskConfig]) -> dict[str, Figures]:
    """Figures by task; what the store lacks is computed in one new evaluator, so proxies find no embedding ready."""
    evaluator, found = None, {}
    for task in tasks:
        spec, inputs = score_spec(model, task, config), score_inputs(model)
        artifact = store.get("scores", artifact_key("scores", spec, inputs))
        if artifact is None:
            evaluator = evaluator or Evaluator(store, config)
            found[task.name] = evaluator.score(model, task, spec, inputs)[1]
            print(f"  {model.name:40} {task.name:24} {found[task.name]['score']:.4f}", flush=True)
        else:
            found[task.name] = artifact.figures
    return found


def turned(tasks: Sequence[TaskConfig], number: int) -> list[TaskConfig]:
    """The tasks from another one on for every model: the first to be evaluated has the loading in its time."""
    start = number % len(tasks)
    return [*tasks[start:], *tasks[:start]]


def compare(full: Sequence[float], proxy: Sequence[float]) -> Figures:
    """Agreement of two rows of scores, one per model; None where all scores of a row are equal."""
    rho, tau = spearmanr(full, proxy).statistic, kendalltau(full, proxy).statistic
    return {
        "spearman": None if np.isnan(rho) else float(rho),
        "kendall": None if np.isnan(tau) else float(tau),
        "spread_full": max(full) - min(full),
        "sd_full": float(np.std(full, ddof=1)),
        "sd_proxy": float(np.std(proxy, ddof=1)),
        "lost_by_choice": max(full) - full[int(np.argmax(proxy))],
    }


def report(tasks: Sequence[TaskConfig], sizes: Sequence[int], scores: Sequence[dict[str, Figures]]) -> list[Figures]:
    """A row of figures for every task and size, and for the mean over tasks and every size."""
    rows = []
    for size in sizes:
        pairs = list(zip(tasks, proxy_of(tasks, size), strict=True))
        whole, small = ([[row[pair[side].name] for pair in pairs] for row in scores] for side in (0, 1))
        values = [np.array([[one["score"] for one in row] for row in table]) for table in (whole, small)]
        times = [
            [median(one["seconds"] for one in column) for column in zip(*table, strict=True)]
            for table in (whole, small)
        ]
        for place, (task, _) in enumerate(pairs):
            figures = compare(values[0][:, place].tolist(), values[1][:, place].tolist())
            rows.append({"task": task.name, "size": size, **figures, **_times(times[0][place], times[1][place])})
        figures = compare(values[0].mean(axis=1).tolist(), values[1].mean(axis=1).tolist())
        rows.append({"task": MEAN, "size": size, **figures, **_times(sum(times[0]), sum(times[1]))})
    return sorted(rows, key=lambda row: row["task"] == MEAN)


def _times(full: float, proxy: float) -> Figures:
    return {"seconds_full": round(full, 3), "seconds_proxy": round(proxy, 3), "speed_up": full / proxy}


def print_rows(rows: Sequence[Figures], texts: dict[str, int]) -> None:
    """One line per row; scores in points of 100, and the share of the texts to encode that a proxy has."""
    titles = (
        "task",
        "size",
        "texts",
        "Spearman",
        "Kendall",
        "spread",
        "lost by choice",
        "full, s",
        "proxy, s",
        "speed-up",
    )
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for row in rows:
        ranks = ["-" if row[name] is None else f"{row[name]:.2f}" for name in ("spearman", "kendall")]
        names = [name for name in texts if f"{name}.{row['size']}" in texts and row["task"] in (name, MEAN)]
        share = sum(texts[f"{name}.{row['size']}"] for name in names) / sum(texts[name] for name in names)
        cells = [
            *(row["task"], str(row["size"]), f"{100 * share:.0f} %", *ranks),
            *(f"{100 * row['spread_full']:.2f}", f"{100 * row['lost_by_choice']:.2f}"),
            *(f"{row['seconds_full']:.1f}", f"{row['seconds_proxy']:.1f}", f"{row['speed_up']:.1f}"),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Make the models, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--store", type=Path, required=True, help="folder for scores and models; reused by a second call"
    )
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="folders of --data, NAME or NAME:TYPE")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--members", type=Path, help="folder below which the members' model folders are")
    parser.add_argument(
        "--base", default="embedded:all-MiniLM-L6-v2", help="what is copied with noise without --members"
    )
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="of the noise, against the weights")
    parser.add_argument("--seed", type=int, default=42, help="of noise, weights, rows of the proxies, and probes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where all figures go; STORE/proxies.json otherwise")
    arguments = parser.parse_args()
    tasks = [task_of(name, arguments.data) for name in arguments.tasks]
    sets = [tasks, *(proxy_of(tasks, size) for size in arguments.sizes)]
    config = EvaluationConfig(
        out_of_domain=tuple(task for tasks in sets for task in tasks),
        seed=arguments.seed,
        cpus_per_actor=arguments.threads,
    )
    check_tasks(config)
    store = Store(arguments.store.absolute())
    members = sorted(path.parent for path in arguments.members.rglob("modules.json")) if arguments.members else []
    home = arguments.store.absolute() / "noisy"
    base, levels = find_folder(arguments.base), arguments.levels
    found = models(store, home, members, base, levels, arguments.models, arguments.seed)
    scores: list[dict[str, Figures]] = []
    for number, model in enumerate(found):
        scores.append({})
        for group in sets:
            scores[-1] |= score(store, config, model, turned(group, number))
    rows = report(tasks, arguments.sizes, scores)
    texts = {task.name: sum(1 for _ in load_data(task, config.seed).encoded()) for task in config.tasks}
    result = {
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("mteb", "torch", "sentence-transformers")},
        "threads": arguments.threads,
        "seed": arguments.seed,
        "models": [model.name for model in found],
        "texts": texts,
        "rows": rows,
        "scores": [{name: figures["score"] for name, figures in row.items()} for row in scores],
    }
    target = arguments.json or arguments.store / "proxies.json"
    target.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print_rows(rows, texts)


if __name__ == "__main__":
    main()
