"""One measured thing of `benchmarks/merging.py`, alone in its process, so that its peak memory is its own.

    python benchmarks/merge_measure.py '{"what": "plain", ...}'

The last line of the output is a JSON object: wall and CPU seconds and memory of the work itself, imports excluded.
Memory is counted from what the process has after its imports: ``peak`` is the growth of the resident set, in which
pages of memory-mapped files count although the system could take them back; ``own`` is the growth of anonymous memory
alone, sampled every 5 ms.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CHUNK = 8 << 20
Work = Callable[[], Any]


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Sampler(threading.Thread):
    """Watches anonymous memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._end = status("RssAnon"), threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._end.wait(0.005):
            self.peak = max(self.peak, status("RssAnon"))

    def stop(self) -> int:
        """The most that was seen; bytes."""
        self._end.set()
        self.join()
        return max(self.peak, status("RssAnon"))


def measure(work: Work) -> dict[str, Any]:
    """Seconds and bytes of one call."""
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    resident, anonymous = status("VmRSS"), status("RssAnon")
    sampler = Sampler()
    sampler.start()
    cpu, wall = _cpu(), time.perf_counter()
    extra = work()
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "peak": max(0, status("VmHWM") - resident),
        "own": max(0, sampler.stop() - anonymous),
        "extra": extra,
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def plain(task: dict[str, Any]) -> Work:
    """Read all weights in pieces of 8 MiB into one buffer; write as many bytes as the output has."""

    def work() -> None:
        buffer = bytearray(CHUNK)
        for folder in task["models"]:
            with (Path(folder) / "model.safetensors").open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
        if not task["out"]:
            return
        Path(task["out"]).mkdir()
        with (Path(task["out"]) / "model.safetensors").open("wb", buffering=0) as stream:
            left = (Path(task["models"][0]) / "model.safetensors").stat().st_size
            while left:
                left -= stream.write(memoryview(buffer)[: min(left, CHUNK)])

    return work


def _job(task: dict[str, Any]) -> Any:
    """A merge of ours: members with known fingerprints, as artifacts of a store have them."""
    from boom_ray.config import MergeConfig
    from boom_ray.merging.job import MergeInputs, MergeJob
    from boom_ray.merging.recipe import MemberRef
    from boom_ray.store import Store

    refs = [
        MemberRef(Path(folder).name, folder, fingerprint, 1)
        for folder, fingerprint in zip(task["models"], task["fingerprints"], strict=True)
    ]
    config = MergeConfig(
        method=task["method"],
        base="base" if task["method"] == "multislerp" and task["base"] else "none",
        parameters=task["parameters"],
        weights=tuple(task["weights"]),
        merge_dtype=task["dtype"],
        cpus=os.cpu_count(),
    )
    inputs = MergeInputs(refs[1:], refs[0]) if task["base"] else MergeInputs(refs)
    return MergeJob(Store(task["store"]), inputs, config)


def ours(task: dict[str, Any]) -> Work:
    """The merging stage, in this process, from the members' files to a complete model folder."""
    from boom_ray.merging.run import MODEL, merge_here

    def work() -> str:
        return str(merge_here(_job(task)).local() / MODEL)

    return work


def fingerprints(task: dict[str, Any]) -> Work:
    """Content hashes of folders that are not artifacts: once per folder, before its first merge."""
    from boom_ray.model.folder import weights_fingerprint

    return lambda: [weights_fingerprint(Path(folder)) for folder in task["models"]]


def _mergekit_arguments(task: dict[str, Any], states: list[Any]) -> dict[str, Any]:
    parameters = dict(task["parameters"])
    if task["base"]:
        parameters["weight"] = list(task["weights"])
        return {"models": dict(enumerate(states)), "base": 0, "parameters": parameters}
    return {"models": dict(enumerate(states)), "parameters": parameters | {"weight": list(task["weights"])}}


def mergekit_api(task: dict[str, Any]) -> Work:
    """The in-memory API of mergekit: load all files, merge, save one file."""
    from mergekit.merge_methods import merge_state_dicts
    from safetensors.torch import load_file, save_file

    def work() -> None:
        states = [load_file(Path(folder) / "model.safetensors") for folder in task["models"]]
        arguments = _mergekit_arguments(task, states)
        out_dtype = next(iter(states[0].values())).dtype
        with torch.no_grad():
            merged = merge_state_dicts(
                method=task["method"], dtype=getattr(torch, task["dtype"]), out_dtype=out_dtype, **arguments
            )
        Path(task["out"]).mkdir()
        save_file(merged, Path(task["out"]) / "model.safetensors")

    return work


def mergekit_cli(task: dict[str, Any]) -> Work:
    """What ``mergekit-yaml config.yml out`` runs, with its own defaults but the types."""
    import yaml
    from mergekit.scripts.run_yaml import main

    members = task["models"][1:] if task["base"] else task["models"]
    config: dict[str, Any] = {
        "merge_method": task["method"],
        "models": [
            {"model": folder, "parameters": {"weight": weight} | task["parameters"]}
            for folder, weight in zip(members, task["weights"], strict=True)
        ],
        "dtype": task["dtype"],
        "out_dtype": task["out_dtype"],
    }
    if task["base"]:
        config["base_model"] = task["models"][0]
    path = Path(task["out"] + ".yml")
    path.write_text(yaml.safe_dump(config))
    return lambda: main([str(path), task["out"], "--quiet"], standalone_mode=False)


def st_merge(task: dict[str, Any]) -> Work:
    """``SentenceTransformer.merge`` of the folders, and saving the result."""
    import mergekit.merge_methods  # noqa: F401  (imported by the merge otherwise)
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):  # imports the model's code
        AutoModel.from_config(AutoConfig.from_pretrained(task["models"][0]))
    members = task["models"][1:] if task["base"] else task["models"]

    def work() -> None:
        merged = SentenceTransformer.merge(
            members,
            task["method"],
            base_model=task["models"][0] if task["base"] else None,
            parameters={"weight": list(task["weights"])} | task["parameters"],
            dtype=task["dtype"],
            out_dtype=task["out_dtype"],
        )
        merged.save_pretrained(task["out"])

    return work


def live_ours(task: dict[str, Any]) -> Work:
    """A merge into a live model from members in memory, after one with other weights: what a trial of a sweep costs."""
    import dataclasses

    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from boom_ray.merging.live import LiveMerger

    job = _job(task)
    architecture = AutoConfig.from_pretrained(task["models"][0]).architectures[0]
    kind = AutoModelForCausalLM if architecture.endswith("ForCausalLM") else AutoModel
    with job.opened() as opened:
        model = kind.from_pretrained(task["models"][0])
        merger = LiveMerger(model, opened, threads=job.threads)
    members = len(job.inputs.members)
    merger.apply(dataclasses.replace(job.recipe, weights=(1 / members,) * members))
    return lambda: merger.apply(job.recipe)


def live_mergekit(task: dict[str, Any]) -> Work:
    """The same by mergekit's in-memory API; the result is not even copied into a model."""
    from mergekit.merge_methods import merge_state_dicts
    from safetensors.torch import load_file

    states = [load_file(Path(folder) / "model.safetensors") for folder in task["models"]]
    arguments = _mergekit_arguments(task, states)
    arguments["out_dtype"] = getattr(torch, task["out_dtype"])

    def work() -> None:
        with torch.no_grad():
            merge_state_dicts(method=task["method"], dtype=getattr(torch, task["dtype"]), **arguments)

    return work


def compare(task: dict[str, Any]) -> Work:
    """How far two results are apart, tensor by tensor, about the base.

    Returns ``relative``, the largest of |a - b| / |b| over tensors (lengths), ``update``, the largest of
    |a - b| / |b - base|, and ``share``, the share of elements that differ by more than the rounding of their type plus
    a thousandth of the root mean square of the update.
    """
    from safetensors import safe_open

    def work() -> dict[str, float]:
        relative = update = 0.0
        far = total = 0
        with contextlib.ExitStack() as stack:
            paths = [Path(folder) / "model.safetensors" for folder in (*task["results"], task["models"][0])]
            ours_, peer, base = (stack.enter_context(safe_open(path, "pt")) for path in paths)
            saved, wanted = peer.keys(), base.keys()
            names = {name.removeprefix("model."): name for name in saved}
            for name in wanted:
                places = ((ours_, name), (peer, names[name.removeprefix("model.")]), (base, name))
                stored = [file.get_tensor(key).view(-1) for file, key in places]
                one, other, start = (values.to(torch.float64) for values in stored)
                gap, moved = one.sub_(other).abs_(), start.sub_(other).norm()
                relative = max(relative, float(gap.norm() / other.norm()))
                update = max(update, float(gap.norm() / moved))
                bound = other.abs_().mul_(torch.finfo(stored[1].dtype).eps).add_(1e-3 * moved / len(gap) ** 0.5)
                far, total = far + int((gap > bound).sum()), total + len(gap)
        return {"relative": relative, "update": update, "share": far / total}

    return work


WORKS: dict[str, Callable[[dict[str, Any]], Work]] = {
    work.__name__: work
    for work in (
        plain,
        ours,
        fingerprints,
        mergekit_api,
        mergekit_cli,
        st_merge,
        live_ours,
        live_mergekit,
        compare,
    )
}


def main() -> None:
    """Measure what the argument says."""
    task = json.loads(sys.argv[1])
    torch.set_num_threads(os.cpu_count() or 1)
    print("\n" + json.dumps(measure(WORKS[task["what"]](task))))


if __name__ == "__main__":
    main()
