"""Merging against mergekit and sentence-transformers, and against reading and writing the same bytes.

    python benchmarks/merging.py [--shape minilm|0.6b|tiny|all] [--repeats 3] [--folder DIR] [--json FILE] [--keep]

Makes a random base and five members of each shape (`merge_models`), merges them with every tool in fresh processes
(`merge_measure`: one merge each, warm page cache, as many threads as cores, float32 arithmetic, ours and the peers
alternating), and prints medians, the ratios that the project promises, and how far the results are apart.

Times cover everything from the members' files to the saved result: ours and SentenceTransformer.merge save a complete
model, mergekit's in-memory API (load_file, merge_state_dicts, save_file) weights alone. Ray is not started. Members'
fingerprints are given, as artifacts of a store have them; what they cost for other folders is a row of its own.

0.6b makes 14 GB of files at most and takes half an hour; TIES is compared there on a model of ``--ties-layers`` layers
and 16,384 words, since mergekit takes minutes for more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from merge_models import MINILM, QWEN3, QWEN3_HALF, TINY, Shape, make_models
from merge_report import Goal, goals_of_group, goals_of_memory, print_goals, print_group, print_live

MEMBERS = 5
WEIGHTS = (0.1, 0.3, 0.2, 0.15, 0.25)
OTHER_WEIGHTS = (0.2, 0.2, 0.2, 0.2, 0.2)
PATIENCE_S = 120
"""A merge that takes longer is not repeated."""
FILES = 12
"""Copies of a model's bytes that are on disk at once: base, members, results to compare and what is being written."""
TIES_VOCABULARY = 16_384


@dataclass(frozen=True)
class Merge:
    """What all tools are asked for: a method, on differences from the base or on whole weights."""

    method: str
    base: bool
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """As it is printed."""
        details = ", ".join(f"{key} {value}" for key, value in self.parameters)
        where = "on differences from the base" if self.base else "on whole weights"
        return f"{self.method} {where}{f', {details}' if details else ''}"


LINEAR, WHOLE = Merge("linear", False), Merge("multislerp", False)
ABOUT_BASE, TIES = Merge("multislerp", True), Merge("ties", True, (("density", 0.2),))
OURS = ("ours", "ours, cached", "ours, float64")
PEERS = ("mergekit_api", "mergekit_cli", "st_merge")
WHATS = {"plain": "plain", **dict.fromkeys(OURS, "ours"), **{peer: peer for peer in PEERS}}


@dataclass(frozen=True)
class Plan:
    """What is measured of one shape.

    Attributes:
        on_disk: merges from files to files, and who does them.
        live: merges of members in memory.
    """

    on_disk: dict[Merge, Sequence[str]]
    live: Sequence[Merge] = ()


@dataclass
class Bench:
    """Models of one shape and the merges of them.

    Attributes:
        home: working folder.
        shape: size of the models.
        repeats: times that everything is measured.
        folders: the base, then the members.
        fingerprints: theirs.
    """

    home: Path
    shape: Shape
    repeats: int
    folders: list[Path] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    counter: int = 0

    def prepare(self) -> dict[str, Any]:
        """Make the models and their fingerprints; returns what fingerprints cost."""
        self.folders = make_models(self.home / "models", self.shape, MEMBERS)
        row = self.run("fingerprints", WHOLE, models=[str(folder) for folder in self.folders])
        self.fingerprints = row["extra"]
        return row

    def run(self, who: str, merge: Merge, **changes: Any) -> dict[str, Any]:
        """One measured process; a row with ``error`` when it fails."""
        self.counter += 1
        models = self.folders if merge.base else self.folders[1:]
        task = {
            "what": WHATS.get(who, who),
            "models": [str(folder) for folder in models],
            "fingerprints": self.fingerprints[-len(models) :],
            "base": merge.base,
            "method": merge.method,
            "parameters": dict(merge.parameters),
            "weights": WEIGHTS,
            "dtype": "float64" if who == "ours, float64" else "float32",
            "out_dtype": str(self.shape.dtype).removeprefix("torch."),
            "store": str(self.home / f"store{self.counter}"),
            "out": str(self.home / f"out{self.counter}"),
        } | changes
        row = measured(task)
        if row.get("error"):
            return row
        if task["what"] in PEERS:
            row["extra"] = task["out"]
        if task["what"] == "ours":
            manifest = json.loads((Path(row["extra"]).parent / "artifact.json").read_text(encoding="utf-8"))
            row["bound"] = manifest["figures"]["memory_bound"]
        return row

    def group(self, merge: Merge, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Rows of every repetition by name, one tool after the other in each; the last results stay for comparing."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        warm = self.home / "warm"
        if "ours, cached" in names:
            self.run("ours", merge, store=str(warm), weights=OTHER_WEIGHTS)
        self.run("plain", merge, out="")  # into the page cache
        for _ in range(self.repeats):
            for name in names:
                if rows[name] and (rows[name][-1].get("error") or rows[name][-1]["wall"] > PATIENCE_S):
                    continue
                self.forget(row.get("extra") for row in rows[name])
                cached = {"store": str(self.copy(warm))} if name == "ours, cached" else {}
                rows[name].append(self.run(name, merge, **cached))
        shutil.rmtree(warm, ignore_errors=True)
        return rows

    def copy(self, warm: Path) -> Path:
        """A store with the statistics of an earlier merge, but without the merge."""
        self.counter += 1
        target = self.home / f"cached{self.counter}"
        shutil.copytree(warm, target, ignore=shutil.ignore_patterns("merge"))
        return target

    def compare(self, rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
        """How far the peers' results, and those in float64, are from ours; then all results are deleted."""
        found = {}
        results = {name: own[-1].get("extra") for name, own in rows.items()}
        for peer in (*PEERS, "ours, float64"):
            if results.get(peer) and results.get("ours"):
                pair = [results["ours"], results[peer]]
                row = self.run("compare", WHOLE, models=[str(self.folders[0])], results=pair)
                if row.get("error"):
                    raise SystemExit(f"The results of {pair} cannot be compared: {row['error']}")
                found[peer] = row["extra"]
        self.forget(results.values())
        for path in [*self.home.glob("out*"), *self.home.glob("store*"), *self.home.glob("cached*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return found

    def forget(self, places: Iterator[str | None] | Any) -> None:
        """Delete results; those of ours lie in stores of their own."""
        for place in places:
            if place and Path(place).is_relative_to(self.home):
                shutil.rmtree(self.home / Path(place).relative_to(self.home).parts[0], ignore_errors=True)


def measured(task: dict[str, Any]) -> dict[str, Any]:
    """The result of one process, or its error."""
    script = Path(__file__).with_name("merge_measure.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count()), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(task)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": lines[-1]}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def middle(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of seconds and memory; the error, if there was one."""
    if rows[-1].get("error"):
        return {"error": rows[-1]["error"]}
    keys = [key for key in ("wall", "cpu", "peak", "own", "bound") if key in rows[0]]
    return {key: median(row[key] for row in rows) for key in keys} | {"runs": len(rows)}


def bench_group(bench: Bench, merge: Merge, names: Sequence[str]) -> tuple[dict[str, Any], list[Goal]]:
    """Measure, compare and print one group."""
    raw = bench.group(merge, names)
    moved = bench.shape.nbytes() * (MEMBERS + merge.base + 1)
    rows = {name: middle(own) for name, own in raw.items()}
    apart = bench.compare(raw)
    print_group(f"{bench.shape.name}: {merge.name}", rows, moved, apart)
    found = goals_of_group(bench.shape.name, merge.method, merge.name, rows)
    return {"shape": bench.shape.name, "merge": merge.name, "bytes": moved, "rows": rows, "apart": apart}, found


def bench_shape(home: Path, shape: Shape, repeats: int, plan: Plan) -> Any:
    """All groups of one shape; returns their figures and goals."""
    bench = Bench(home / shape.name.replace(" ", "-").replace(",", ""), shape, repeats)
    bench.home.mkdir(parents=True)
    need, free = shape.nbytes() * FILES, shutil.disk_usage(home).free
    if free < need:
        raise SystemExit(f"{shape.name} needs {need / 1e9:.1f} GB of disk below {home}; {free / 1e9:.1f} GB are free.")
    once = bench.prepare()
    print(
        f"\n=== {shape.name}: {MEMBERS} members and base, {shape.parameters() / 1e6:.1f} million parameters, "
        f"{str(shape.dtype).removeprefix('torch.')}, {shape.nbytes() / 1e6:.0f} MB each; fingerprints of all, once: "
        f"{once['wall']:.2f} s",
        flush=True,
    )
    groups, goals = [], []
    for merge, names in plan.on_disk.items():
        group, found = bench_group(bench, merge, names)
        groups.append(group)
        goals += found
    for merge in plan.live:
        raw: dict[str, list[dict[str, Any]]] = {"live_ours": [], "live_mergekit": []}
        for _ in range(repeats):
            for name, own in raw.items():
                own.append(bench.run(name, merge))
        rows = {name: middle(own) for name, own in raw.items()}
        goals += print_live(shape.name, merge.name, rows)
        groups.append({"shape": shape.name, "merge": f"live, {merge.name}", "rows": rows})
    shutil.rmtree(bench.home / "models")
    return groups, goals


def plans(arguments: argparse.Namespace) -> Iterator[tuple[Shape, Plan]]:
    """What is measured of which shape."""
    everybody = ("plain", *OURS[:2], *PEERS)
    wide, spherical_and_ties = ("plain", *OURS, *PEERS), (WHOLE, ABOUT_BASE, TIES)
    if arguments.shape == "tiny":
        for shape in TINY.values():
            yield shape, Plan(dict.fromkeys((LINEAR, WHOLE, ABOUT_BASE, TIES), everybody), spherical_and_ties)
    if arguments.shape in ("minilm", "all"):
        yield MINILM, Plan({LINEAR: everybody, WHOLE: wide, ABOUT_BASE: wide, TIES: wide}, spherical_and_ties)
    if arguments.shape in ("0.6b", "all"):
        alone = ("plain", *OURS[:2])
        small = replace(
            QWEN3,
            name=f"0.6b, {arguments.ties_layers} layers, {TIES_VOCABULARY} words",
            layers=arguments.ties_layers,
            vocabulary=TIES_VOCABULARY,
        )
        yield small, Plan({TIES: everybody})
        yield QWEN3_HALF, Plan({WHOLE: alone, ABOUT_BASE: alone, TIES: alone})
        whole = {LINEAR: everybody, WHOLE: everybody, ABOUT_BASE: everybody, TIES: alone}
        yield QWEN3, Plan(whole, (WHOLE, ABOUT_BASE))


def machine() -> dict[str, str]:
    """What the figures were measured on and with."""
    names = ("torch", "mergekit", "sentence-transformers", "transformers", "safetensors")
    return {
        "cores": str(os.cpu_count()),
        "load before the start": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "kernel": platform.release(),
        **{name: version(name) for name in names},
    }


def main() -> None:
    """Measure everything that was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("minilm", "0.6b", "tiny", "all"), default="all")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of everything; medians are printed")
    parser.add_argument("--ties-layers", type=int, default=4, help="layers of the 0.6b shape that TIES is compared on")
    parser.add_argument("--folder", default=None, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures")
    parser.add_argument("--keep", action="store_true", help="leave the working folder")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="boom-merging-", dir=arguments.folder))
    facts, groups, goals = machine(), [], []
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    try:
        for shape, plan in plans(arguments):
            measured_groups, found = bench_shape(home, shape, arguments.repeats, plan)
            groups += measured_groups
            goals += found
    finally:
        if not arguments.keep:
            shutil.rmtree(home, ignore_errors=True)
    goals += goals_of_memory(groups, QWEN3.name, QWEN3_HALF.name)
    print_goals(goals)
    if arguments.json:
        figures = {"machine": facts, "groups": groups, "goals": [goal.spec() for goal in goals]}
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
