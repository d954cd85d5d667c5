"""What a trial of a sweep over merges costs: ours, and the loops that a user would write.

    python benchmarks/sweeps.py [--members DIR] [--tasks stsb …] [--size 256] [--trials 5] [--threads 1] [--actors 2]
                                [--shape minilm|0.6b|all] [--folder DIR] [--json FILE]

*minilm*: all model folders below ``--members`` are merged with random weights and evaluated on proxies of ``--tasks``,
in float32, in one process, the contestants (`sweep_naive`) and we (`LiveEvaluator`, no Ray) taking turns at every
recipe. Ours begins with nothing in the store and nothing in memory; ``--actors`` adds the same recipes on that many
actors. Printed: seconds per trial of the merge (from members to a model that can embed) and of the evaluation, medians,
by the clock and of the CPU, which other work on the machine changes less; trials per minute over all trials, the first
one with its loading included; the largest difference of a score.

*0.6b*: random members of Qwen3-0.6B's shape in bfloat16 merged into a live model from stored statistics, and what
mergekit's in-memory API and loading take for the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import boom_ray.runtime  # noqa: F401  (sets the environment)

import torch  # isort: skip
from proxies import SHARED, task_of
from sweep_large import bench_large
from sweep_naive import METHODS, MOST, NAIVE, Watch, recipes, trial
from threadpoolctl import threadpool_limits

from boom_ray.config import EvaluationConfig, MergeConfig, ModelConfig, TaskConfig
from boom_ray.evaluation.benchmarks import check_tasks
from boom_ray.evaluation.proxies import proxy_of
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.live import LiveMerger
from boom_ray.merging.recipe import MemberRef, Recipe
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from boom_ray.sweeps.job import TrialJob
from boom_ray.sweeps.live import LiveEvaluator, LoadedTasks

TASKS = ("stsb", "mqp", "trec6")
OURS, ACTORS = "ours", "ours, actors"
PARTS = ("merge", "evaluation")
Rows = dict[str, list[dict[str, Any]]]


def jobs_of(refs: Sequence[MemberRef], method: str, drawn: Sequence[tuple[float, ...]], tasks: Any) -> list[TrialJob]:
    """A job per recipe, with arithmetic in float32 as the others have it."""
    configs = [MergeConfig(method=method, weights=weights, merge_dtype="float32") for weights in drawn]
    return [TrialJob(f"trial {number}", MergeInputs(refs), one, tuple(tasks)) for number, one in enumerate(configs)]


def ours(evaluator: LiveEvaluator, job: TrialJob) -> dict[str, Any]:
    """One trial; what is neither loading nor merging counts as evaluation."""
    watch, merging = Watch(), Watch()
    apply = LiveMerger.apply

    def timed(merger: LiveMerger, recipe: Recipe) -> None:
        merging.restart()
        apply(merger, recipe)
        merging.stop()

    with patch.object(LiveMerger, "apply", timed):  # CPU time of a merge is in no figure of a trial
        figures = evaluator.score(job).figures
    watch.stop()
    if "error" in figures:
        raise SystemExit(f"{job.name} failed: {figures['error']}")
    load = figures["load_seconds"]
    return {
        "merge": merging.wall,
        "merge_cpu": merging.cpu,
        "evaluation": watch.wall - merging.wall - load,
        "evaluation_cpu": watch.cpu - merging.cpu - load,
        "load": load,
        "scores": figures["scores"],
    }


def bench_method(
    home: Path, refs: Sequence[MemberRef], method: str, tasks: Sequence[TaskConfig], options: argparse.Namespace
) -> Rows:
    """Rows of every contestant, one per recipe; they take turns, and turns begin with another one each time."""
    drawn = recipes(options.trials, len(refs), options.seed)
    jobs = jobs_of(refs, method, drawn, tasks)
    config = EvaluationConfig(seed=options.seed, cpus_per_actor=options.threads, actors=options.actors)
    evaluator = LiveEvaluator(Store(home / f"store-{method}"), config, ModelConfig())
    loaded, folders = LoadedTasks(options.seed), [Path(ref.path) for ref in refs]
    names = [OURS, *METHODS[method]]
    rows: Rows = {name: [] for name in names}
    for number, job in enumerate(jobs):
        for name in [*names[number % len(names) :], *names[: number % len(names)]]:
            if name == OURS:
                rows[name].append(ours(evaluator, job))
                continue
            own = [loaded.get(task, {"name": task.name}) for task in tasks]
            rows[name].append(trial(NAIVE[name], folders, method, drawn[number], own, home / "naive"))
        walls = ", ".join(f"{name} {sum(rows[name][-1][part] for part in PARTS):.1f} s" for name in names)
        print(f"  {method} {drawn[number]}: {walls}; load average {os.getloadavg()[0]:.1f}", flush=True)
    if options.actors:
        rows[ACTORS] = [on_actors(home / f"actors-{method}", config, jobs)]
    return rows


def on_actors(store: Path, config: EvaluationConfig, jobs: Sequence[TrialJob]) -> dict[str, Any]:
    """All jobs on actors that are started for them; a cluster is there already."""
    from boom_ray.config import ClusterConfig
    from boom_ray.runtime import cluster
    from boom_ray.sweeps.arena import Arena

    with cluster(ClusterConfig(num_cpus=int(config.cpus_per_actor * (config.actors or 1)), object_store_gb=0.2)):
        arena = Arena(Store(store), config, ModelConfig())
        try:
            started = time.perf_counter()
            outcomes = arena.score(jobs)
            wall = time.perf_counter() - started
        finally:
            arena.close()
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if errors:
        raise SystemExit(errors[0])
    return {"wall": wall, "trials": len(jobs), "scores": outcomes[-1].scores}


def summary(rows: Rows) -> dict[str, dict[str, float]]:
    """Medians per trial, trials per minute over all, and how much cheaper ours is."""
    found: dict[str, dict[str, float]] = {}
    for name, own in rows.items():
        if name == ACTORS:
            found[name] = {"trials_per_minute": 60 * own[0]["trials"] / own[0]["wall"]}
            continue
        total = sum(row["merge"] + row["evaluation"] + row.get("load", 0.0) for row in own)
        found[name] = {"trials_per_minute": 60 * len(own) / total}
        for kind in ("", "_cpu"):
            found[name] |= {part + kind: median(row[part + kind] for row in own) for part in PARTS}
            found[name]["whole" + kind] = median(sum(row[part + kind] for part in PARTS) for row in own)
        if name != OURS:
            pairs = zip(own, rows[OURS], strict=True)
            found[name]["apart"] = max(
                abs(row["scores"][task] - value) for row, mine in pairs for task, value in mine["scores"].items()
            )
    found[OURS]["load"] = rows[OURS][0]["load"]
    return found


def print_summary(method: str, found: dict[str, dict[str, float]]) -> None:
    """A table; ratios are those to ours."""
    mine = found[OURS]
    print(f"\n{method}: medians per trial; loading model and members once took us {mine['load']:.2f} s")
    titles = ["", *(f"{part}, {kind}" for kind in ("s", "CPU-s") for part in ("merge", "evaluation", "whole"))]
    titles += ["trials per minute", "merge, ratio of CPU", "whole, ratio of CPU", "scores apart"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name, one in found.items():
        if name == ACTORS:
            print(f"{name}: {one['trials_per_minute']:.2f} trials per minute, their start included")
            continue
        cells = [f"{one[part + kind]:.3f}" for kind in ("", "_cpu") for part in (*PARTS, "whole")]
        cells += [f"{one['trials_per_minute']:.2f}"]
        cells += [f"{one[part] / mine[part]:.1f}" for part in ("merge_cpu", "whole_cpu")]
        cells += [f"{one['apart']:.1e}" if "apart" in one else ""]
        print(f"| {name} | {' | '.join(cells)} |")


def bench_minilm(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Real members and tasks."""
    folders = sorted(path.parent for path in options.members.rglob("modules.json"))[: options.most]
    hashes = [weights_fingerprint(folder) for folder in folders]
    named = enumerate(zip(folders, hashes, strict=True))
    refs = [MemberRef(str(number), str(folder), fingerprint, 1) for number, (folder, fingerprint) in named]
    tasks = proxy_of([task_of(name, options.data) for name in options.tasks], options.size)
    check_tasks(EvaluationConfig(out_of_domain=tasks))
    found = {}
    print(f"{len(refs)} members, {', '.join(task.name for task in tasks)}, {options.threads} thread(s)")
    for method in options.methods:
        found[method] = summary(bench_method(home, refs[: MOST.get(method)], method, tasks, options))
        print_summary(method, found[method])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=Path, help="folder below which the members' model folders are")
    parser.add_argument("--most", type=int, default=3, help="most members that are merged")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="folders of --data, NAME or NAME:TYPE")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--size", type=int, default=256, help="of the proxies")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--actors", type=int, help="measure that many actors as well")
    parser.add_argument("--shape", choices=("minilm", "0.6b", "all"), default="minilm")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if options.shape != "0.6b" and options.members is None:
        parser.error("--members is needed for --shape minilm")
    home = Path(tempfile.mkdtemp(prefix="boom-sweeps-", dir=options.folder))
    names = ("torch", "mergekit", "sentence-transformers", "transformers", "mteb")
    facts: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    facts |= {name: version(name) for name in names}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    torch.set_num_threads(options.threads)
    figures: dict[str, Any] = {"machine": facts, "threads": options.threads}
    try:
        with threadpool_limits(options.threads):
            if options.shape != "0.6b":
                figures["minilm"] = bench_minilm(home, options)
            if options.shape != "minilm":
                figures["0.6b"] = bench_large(home, options.trials, options.threads, options.seed)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
