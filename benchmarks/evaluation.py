"""Evaluation speed and parity: `jobs/evaluate.py` on a fresh and on a filled store against plain mteb in one process.

    python benchmarks/evaluation.py [--data ../shared/data] [--tasks scifact stsb …] [--json FILE]

Plain mteb is what a user would write: `mteb.evaluate` of a `SentenceTransformer` on every task, with all cores for
torch. Ours is the job as a user runs it, imports and the start of Ray and MLflow included; in float32 as plain mteb,
and once more in bfloat16 with a store of its own. Each runs in processes of its own, one after the other. Reported:
wall and processor seconds, the most memory of all processes (proportional set size), the ratios, and how far the main
scores are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[1]
CLOSE = 1e-4
TASKS: dict[str, dict[str, Any]] = {
    "scifact": {"type": "retrieval"},
    "conala": {"type": "retrieval"},
    "cosqa": {"type": "retrieval"},
    "mbpp": {"type": "retrieval"},
    "stsb": {"type": "sts"},
    "sick": {"type": "sts"},
    "twitterurl": {"type": "pair"},
    "mqp": {"type": "reranking"},
    "twitterurl-rerank": {"type": "reranking", "folder": "twitterurl"},
    "wikiqa": {"type": "reranking"},
    "banking77": {"type": "classification"},
    "snips": {"type": "classification"},
    "tweet_emotion": {"type": "classification"},
    "clu_stackoverflow": {"type": "clustering"},
    "tldr-pairs": {"type": "bitext", "folder": "tldr", "made": True},
}


class Watch(threading.Thread):
    """Processor seconds and most memory of a process and all that it starts, sampled."""

    def __init__(self, process: int) -> None:
        """Watch this process."""
        super().__init__(daemon=True)
        self.root, self.peak = psutil.Process(process), 0
        self._seconds: dict[int, float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until told to end."""
        while not self.ended.wait(2):
            self.sample()

    def sample(self) -> None:
        """One look at all processes."""
        total = 0
        try:
            family = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                times = process.cpu_times()
                self._seconds[process.pid] = times.user + times.system
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak = max(self.peak, total)

    def end(self) -> dict[str, float]:
        """Figures so far."""
        self.ended.set()
        self.join()
        return {"cpu_s": sum(self._seconds.values()), "peak_mb": self.peak / 2**20}


def measured(command: list[str]) -> tuple[dict[str, float], str]:
    """Wall and processor seconds and memory of a command, and what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
        watch = Watch(process.pid)
        watch.start()
        code = process.wait()
        wall = time.perf_counter() - started
        figures = watch.end()
        output.seek(0)
        text = output.read()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{text[-3000:]}")
    return {"wall_s": wall, **figures}, text


def task_configs(data: Path, scratch: Path, names: list[str]) -> list[dict[str, Any]]:
    """The tasks as a configuration names them; pairs for mining are made of a retrieval set's training rows."""
    found = []
    for name in names:
        task = dict(TASKS[name])
        folder = data / task.pop("folder", name)
        if task.pop("made", False):
            rows = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
            folder = scratch / name
            folder.mkdir()
            lines = [json.dumps({"sentence1": row["query"], "sentence2": row["pos"][0]}) for row in rows[:1000]]
            (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if name.endswith("-rerank") or name == "wikiqa":
            folder = _only(folder, "rerank.test.jsonl", scratch / f"{name}-files")
        found.append({"name": name, "path": str(folder), **task})
    return found


def _only(folder: Path, name: str, target: Path) -> Path:
    target.mkdir()
    (target / "test.jsonl").symlink_to(folder / name)
    return target


def plain(spec: Path) -> None:
    """Every task with plain mteb; prints scores as JSON."""
    import mteb
    import torch
    from sentence_transformers import SentenceTransformer

    from boom_ray.config import TaskConfig
    from boom_ray.evaluation.local_tasks import load_task

    facts = json.loads(spec.read_text(encoding="utf-8"))
    torch.set_num_threads(facts["threads"])
    model = SentenceTransformer(facts["model"], device="cpu")
    scores = {}
    for task in facts["tasks"]:
        started = time.perf_counter()
        loaded = load_task(TaskConfig(**task), 42)
        result = mteb.evaluate(model, loaded, cache=None, co2_tracker=False, show_progress_bar=False)
        scores[task["name"]] = result.task_results[0].get_score()
        print(f"  plain: {task['name']:20} {time.perf_counter() - started:7.1f} s", flush=True)
    print("SCORES " + json.dumps(scores))


def ours(scratch: Path, spec: dict[str, Any]) -> Path:
    """The configuration of the job."""
    config = {
        "name": "benchmark",
        "store": str(scratch / "store"),
        "models": [{"name": "model", "path": spec["model"]}],
        "evaluation": {
            "in_domain": spec["tasks"],
            "actors": spec["actors"],
            "cpus_per_actor": spec["threads"] / spec["actors"],
        },
        "export": str(scratch / "export"),
        "cluster": {"num_cpus": spec["threads"]},
    }
    path = scratch / "job.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def our_scores(export: Path) -> dict[str, float]:
    """Main scores from the result files that the job exported."""
    from mteb.results import TaskResult

    paths = [path for path in export.rglob("*.json") if path.name != "model_meta.json"]
    return {path.stem: float(TaskResult.from_disk(path).get_score()) for path in paths}


def main() -> None:
    """Run all three and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(arguments.plain)
        return
    from boom_ray.config import ModelConfig
    from boom_ray.model.folder import resolve_base

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        spec = {
            "model": str(resolve_base(ModelConfig(base="embedded:all-MiniLM-L6-v2"))),
            "tasks": task_configs(arguments.data, scratch, arguments.tasks),
            "threads": arguments.threads,
            "actors": arguments.actors,
        }
        path = scratch / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        job = [sys.executable, "jobs/evaluate.py", str(ours(scratch, spec))]
        results: dict[str, Any] = {}
        results["cold"], _ = measured(job)
        theirs, text = measured([sys.executable, __file__, "--plain", str(path)])
        results["plain"] = theirs
        print(text, end="")
        results["warm"], _ = measured(job)
        other = [f"store={scratch / 'store-bfloat16'}", f"export={scratch / 'export-bfloat16'}"]
        results["bfloat16"], _ = measured([*job, "evaluation.precision=bfloat16", *other])
        expected = json.loads(text.split("SCORES ", 1)[1])
        for key, export in (("apart", "export"), ("apart_bfloat16", "export-bfloat16")):
            found = our_scores(scratch / export)
            results[key] = {name: abs(found[name] - value) for name, value in expected.items()}
    _print(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _print(results: dict[str, Any]) -> None:
    for name in ("plain", "cold", "warm", "bfloat16"):
        one = results[name]
        print(f"{name:8} {one['wall_s']:8.1f} s wall {one['cpu_s']:8.1f} s CPU {one['peak_mb']:7.0f} MB")
    cold, warm = (results["plain"]["wall_s"] / results[name]["wall_s"] for name in ("cold", "warm"))
    print(f"plain / cold {cold:.2f}, plain / warm {warm:.0f}")
    for key, words in (("apart", "main scores"), ("apart_bfloat16", "in bfloat16")):
        far = {name: value for name, value in results[key].items() if value > CLOSE}
        listed = "".join(f"; {name} {value:.1e}" for name, value in far.items())
        print(f"{words} of {len(results[key]) - len(far)} tasks within {CLOSE:.0e}{listed}")


if __name__ == "__main__":
    main()
