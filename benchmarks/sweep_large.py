"""Merges of members of Qwen3-0.6B's shape into a live model, for `benchmarks/sweeps.py`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from merge_models import QWEN3, make_models
from sweep_naive import by_mergekit, recipes
from transformers import AutoModelForCausalLM

from boom_ray.config import MergeConfig
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from boom_ray.sweeps.members import MemberSets

CASES: tuple[tuple[str, bool], ...] = (("linear", False), ("multislerp", False), ("multislerp", True), ("ties", True))
"""Methods, and whether vectors are differences from the base."""


def bench_large(home: Path, trials: int, threads: int, seed: int) -> list[dict[str, Any]]:
    """Every case with 2 and 3 members, a line each."""
    folders = make_models(home / "large", QWEN3, 3)
    refs = [MemberRef(folder.name, str(folder), weights_fingerprint(folder), 1) for folder in folders]
    live = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.bfloat16)
    rows = []
    for method, base in CASES:
        for count in (2, 3):
            inputs, drawn = MergeInputs(refs[1 : count + 1], refs[0]), recipes(trials + 1, count, seed)
            about = {"base": "base"} if base and method == "multislerp" else {}
            configs = [MergeConfig(method=method, weights=own, cpus=threads, **about) for own in drawn]
            row = _merges(live, [MergeJob(Store(home / "store-large"), inputs, one) for one in configs], threads)
            if not base:
                row["mergekit"] = _by_mergekit(folders[1 : count + 1], method, drawn[-1], home / "naive")
            row |= {"method": f"{method}{' about the base' if base else ''}", "members": count}
            rows.append(row)
            _print(row)
    return rows


def _merges(live: torch.nn.Module, jobs: Sequence[MergeJob], threads: int) -> dict[str, Any]:
    """Seconds of loading with statistics, of the first merge, and the median of the others; bytes held."""
    sets, merges, load = MemberSets(live, threads, room=0), [], 0.0
    for job in jobs:
        started = time.perf_counter()
        merger = sets.merger(job)
        loaded = time.perf_counter()
        merger.apply(job.recipe)
        merges.append(time.perf_counter() - loaded)
        load = max(load, loaded - started)
    return {"load": load, "first": merges[0], "merge": median(merges[1:]), "held": sets.nbytes}


def _by_mergekit(folders: Sequence[Path], method: str, weights: Sequence[float], out: Path) -> float:
    """Seconds from members' files to a loaded model."""
    started = time.perf_counter()
    by_mergekit(folders, method, weights, out)
    AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def _print(row: dict[str, Any]) -> None:
    peer = f"; mergekit to a folder and loading it {row['mergekit']:.2f} s" if "mergekit" in row else ""
    print(
        f"0.6b, {row['method']}, M={row['members']}: {row['merge']:.2f} s per trial (the first {row['first']:.2f} s; "
        f"members and statistics once {row['load']:.2f} s; {row['held'] / 1e9:.1f} GB held){peer}; "
        f"load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )
