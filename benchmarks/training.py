"""Training speed: boom_ray's engine against the trainers of sentence-transformers and FlagEmbedding.

    python benchmarks/training.py --model minilm                       # CPU: all contestants, one after the other
    python benchmarks/training.py --model bert-base
    python benchmarks/training.py --model minilm --flag /path/to/venv/bin/python
    python benchmarks/training.py --device cuda                        # minilm, bert-base and a 0.6B decoder, with MFU

Every contestant is a fresh process that gets the same model, batches, order, loss, optimiser and number of threads.
Text is ``../shared/data`` when it is there, else the embedded text; lengths are real. Reported: pairs per second,
processor seconds per 1,000 pairs, most memory, padding, what share of the machine's measured matrix rate the model's
own operations (no padding, nothing counted twice) make, and how far losses are from sentence-transformers in float32.
The best setting of sentence-transformers is the fastest of all that are tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training_data import SHAPES, read_batches, write_batches, write_long_batches, write_model

HERE = Path(__file__).parent
Result = dict[str, Any]
CPU_PEERS: list[dict[str, Any]] = [
    {"bf16": False},
    {"bf16": True},
    {"bf16": True, "attention": "eager"},
    {"bf16": True, "attention": "eager", "mini_batch_tokens": 2048},
]
GPU_PEERS: list[dict[str, Any]] = [{"bf16": False}, {"bf16": True}, {"bf16": True, "workers": 4}]
DECODER_PEERS: list[dict[str, Any]] = [{"bf16": True}, {"bf16": True, "mini_batch_tokens": 18432}]
DEFAULTS = {
    "cpu": {"minilm": (64, 1, 12, 4), "bert-base": (64, 1, 4, 1)},
    "cuda": {"minilm": (512, 1, 24, 8), "bert-base": (256, 1, 14, 6), "qwen3-0.6b": (8, 7, 16, 6)},
}


def matrix_rate(device: str, threads: int) -> dict[str, float]:
    """Operations per second of large matrix products, float32 and bfloat16, measured now."""
    import torch

    torch.set_num_threads(threads)
    found = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        size = 2048 if device == "cpu" else 8192
        one, other = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        best = float("inf")
        for _ in range(6):
            started = time.perf_counter()
            product = one @ other
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
        found[name] = 2 * size**3 / best
        del product
    return found


def operations(model: Path, data: Path, warm: int, limit: int) -> tuple[float, int]:
    """Floating-point operations and tokens of the timed steps: every text forward and backward once, no padding."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from boom_ray.model.encoder import Encoder
    from boom_ray.training.flops import Flops

    with torch.device("meta"):  # shapes are enough
        flops = Flops(Encoder(AutoModel.from_config(AutoConfig.from_pretrained(model)), "mean", True))
    tokenizer = AutoTokenizer.from_pretrained(model)
    total, tokens = 0.0, 0
    for batch in read_batches(data)[warm:]:
        texts = [text for one in batch["examples"] for text in (one["query"], one["positive"], *one["negatives"])]
        ids = tokenizer(texts, truncation=True, max_length=limit).input_ids
        total += flops.of(ids)
        tokens += sum(map(len, ids))
    return total, tokens


def run(spec: dict[str, Any], python: str = sys.executable, script: str = "training_runs.py") -> Result:
    """One contestant in a fresh process; a failure is a result with its reason."""
    path = Path(spec["scratch"]) / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }  # loaders fork and would hang
    command = [python, str(HERE / script), str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=spec["timeout"], env=environment
        )
    except subprocess.TimeoutExpired:
        return {"name": spec["contestant"], "error": f"it took more than {spec['timeout']} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"name": spec["contestant"], "error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    result: Result = json.loads(lines[-1])
    result.setdefault("peak_memory_mb", result.get("peak_rss_mb"))
    return {"seconds": (spec["steps"] - spec["warm"]) * spec["batch_size"] / result["pairs_per_s"], **result}


def contest(arguments: argparse.Namespace, shape: str, scratch: Path) -> list[Result]:
    """All contestants on one model; of repeated runs the fastest counts."""
    batch, negatives, steps, warm = DEFAULTS[arguments.device][shape]
    batch, steps, warm = arguments.batch or batch, arguments.steps or steps, arguments.warm or warm
    negatives = negatives if arguments.negatives is None else arguments.negatives
    data, decodes = scratch / "batches.jsonl", shape.startswith("qwen3")
    limit = 512 if decodes else 256
    if arguments.data:
        data.write_bytes(Path(arguments.data).read_bytes())
    elif decodes:
        write_long_batches(data, steps, batch, negatives, words=600)
    else:
        write_batches(data, steps, batch, negatives)
    model = _model(arguments, shape, scratch)
    spec = {
        "model": str(model),
        "data": str(data),
        "scratch": str(scratch),
        "steps": steps,
        "warm": warm,
        "batch_size": batch,
        "negatives": negatives,
        "query_tokens": limit,
        "passage_tokens": limit,
        "learning_rate": 2e-5,
        "temperature": 0.05,
        "threads": arguments.threads,
        "device": arguments.device,
        "timeout": arguments.timeout,
    }
    flops, tokens = operations(model, data, warm, limit)
    print(f"\n{shape}: {steps - warm} steps of {batch} queries, {negatives} negatives, {tokens:,} tokens", flush=True)
    rates = matrix_rate(arguments.device, arguments.threads)
    results = []
    arguments.decodes = decodes
    for one in _contestants(arguments, spec):
        found = min((run(*one) for _ in range(arguments.repeats)), key=lambda result: result.get("seconds", 1e9))
        found["rate"] = rates["bfloat16" if one[0]["bf16"] else "float32"]
        found["flops_per_s"] = flops / found["seconds"] if "seconds" in found else 0.0
        print(f"  {_line(found)}", flush=True)
        results.append(found)
    return results


def _model(arguments: argparse.Namespace, shape: str, scratch: Path) -> Path:
    """MiniLM itself, or random weights of a shape."""
    if arguments.tokenizer is not None:
        return write_model(scratch / shape, shape, Path(arguments.tokenizer))
    from boom_ray.config import ModelConfig
    from boom_ray.model.folder import resolve_base

    embedded = resolve_base(ModelConfig(base="embedded:all-MiniLM-L6-v2"))
    return embedded if shape == "minilm" else write_model(scratch / shape, shape, embedded)


def _contestants(arguments: argparse.Namespace, spec: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Specification, and for FlagEmbedding its Python and script; each runs as often as any other."""
    found: list[tuple[Any, ...]] = [({**spec, "contestant": "ours", "bf16": True},)]
    peers = DECODER_PEERS if arguments.decodes else GPU_PEERS if arguments.device == "cuda" else CPU_PEERS
    if arguments.device == "cuda" and importlib.util.find_spec("flash_attn"):
        peers = [*peers, {"bf16": True, "attention": "flash_attention_2"}]  # it reads texts without padding then
    for peer in peers:
        found.append(({**spec, "contestant": "sentence-transformers", **peer},))
    if arguments.flag:
        for bf16 in (False, True):
            found.append(({**spec, "contestant": "flagembedding", "bf16": bf16}, arguments.flag, "training_flag.py"))
    if arguments.device == "cpu":
        small = {"kept_tokens": 8192}  # memory as the peers' most frugal setting takes
        found.append(({**spec, "contestant": "ours", "bf16": True, "training": small},))
        found.append(({**spec, "contestant": "ours", "bf16": False},))
    return found


def _line(result: Result) -> str:
    if "error" in result:
        return f"{result['name']:22} failed: {result['error']}"
    share = result["flops_per_s"] / result["rate"]
    return (
        f"{result['name']:22} {result['pairs_per_s']:8.1f} pairs/s {result['cpu_s_per_1000_pairs']:7.1f} CPU s/1000 "
        f"{result['peak_memory_mb']:8.0f} MB {100 * result['padding_share']:5.1f} % padding {100 * share:5.1f} % of "
        f"matrix rate  {result['settings']}"
    )


def summary(results: list[Result], device: str) -> None:
    """Ratios to the peers, and how far the losses are apart."""
    good = [result for result in results if "error" not in result]
    own = [one for one in good if one["name"] == "ours"]
    peers = [one for one in good if one["name"] == "sentence-transformers"]
    if not own or not peers:
        print("  no ratio: one side has no result")
        return
    ours = max(own, key=lambda one: one["pairs_per_s"])
    default, best = peers[0], max(peers, key=lambda one: one["pairs_per_s"])
    for title, peer in (("first", default), ("best", best)):
        faster = ours["pairs_per_s"] / peer["pairs_per_s"]
        cpu = peer["cpu_s_per_1000_pairs"] / ours["cpu_s_per_1000_pairs"]
        memory = ours["peak_memory_mb"] / peer["peak_memory_mb"]
        print(
            f"  ours / sentence-transformers {title} ({peer['settings']}): {faster:.2f}x pairs/s, {cpu:.2f}x less CPU "
            f"time, {memory:.2f} of its memory"
        )
    for one in good:
        if device == "cpu" and len(one["losses"]) == len(default["losses"]):
            apart = max(abs(a - b) for a, b in zip(one["losses"], default["losses"], strict=True))
            print(f"  losses of {one['name']} ({one['settings']}) within {apart:.1e} of the default's")
    if device == "cuda":
        import torch

        from boom_ray.training.flops import peak_flops

        peak = peak_flops(torch.device("cuda"))
        for one in good:
            print(f"  MFU of {one['name']} ({one['settings']}): {100 * one['flops_per_s'] / (peak or 1):.1f} %")


def main() -> None:
    """Run the contest on one model or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), help="one of them; without it all that suit the device")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--negatives", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--warm", type=int, help="steps that are not timed")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=1200, help="seconds after which a contestant is given up")
    parser.add_argument("--data", help="a file of batches that was written before")
    parser.add_argument("--tokenizer", help="folder of a tokenizer, where the embedded model is not installed")
    parser.add_argument("--flag", help="Python of a virtual environment with FlagEmbedding 1.4.2")
    parser.add_argument("--json", help="where all figures go")
    arguments = parser.parse_args()
    shapes = [arguments.model] if arguments.model else list(DEFAULTS[arguments.device])
    everything = {}
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            everything[shape] = contest(arguments, shape, Path(folder))
        summary(everything[shape], arguments.device)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
