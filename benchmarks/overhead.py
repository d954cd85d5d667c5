"""What Ray costs: the wall time of a whole job against the same stages' work in one bare process.

    python benchmarks/overhead.py conf/quickstart.yaml [--threads 2] [--finished STORE SECONDS]

First the job runs as a user runs it (a fresh store, everything computed). Then one process without Ray does the same
work on the same data: reads the sources, tokenises, draws bags, trains the members one after the other, merges, and
evaluates every model with plain mteb. Both use the same number of cores. Prints both times and their ratio.
``--finished`` takes the store and the seconds of a job that has just run instead of running one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boom_ray.runtime  # noqa: F401  (sets the environment)
from boom_ray.config import RunConfig, load_config

ROOT = Path(__file__).parents[1]


def run_job(config: str, store: Path) -> float:
    """Seconds of the job as a user sees it, imports and the start of Ray included."""
    started = time.monotonic()
    subprocess.run([sys.executable, "jobs/boom.py", config, f"store={store}"], cwd=ROOT, check=True)
    return time.monotonic() - started


def run_bare(config: str, store: Path, threads: int) -> float:
    """Seconds of the same work in one process without Ray, imports included."""
    started = time.monotonic()
    command = [sys.executable, __file__, config, "--threads", str(threads), "--bare", str(store)]
    subprocess.run(command, cwd=ROOT, check=True)
    return time.monotonic() - started


def bare(config_path: str, store_root: Path, threads: int) -> None:
    """The work itself; the job's store gives the tokens and plans so that both train on the same steps."""
    import torch

    from boom_ray.artifacts.batches import BatchReader
    from boom_ray.artifacts.plan import open_plan
    from boom_ray.artifacts.tokens import open_corpus
    from boom_ray.events import silent
    from boom_ray.flows.inputs import load_base, prompts, with_embedded
    from boom_ray.model.encoder import load_encoder, save_model
    from boom_ray.model.losses.policy import policy_of
    from boom_ray.model.tokenizer import load_tokenizer
    from boom_ray.store import Store
    from boom_ray.training.group import Group
    from boom_ray.training.loop import Listeners, Loop, Plan

    torch.set_num_threads(threads)
    config = load_config(RunConfig, config_path, [f"store={store_root}"])
    store = Store(store_root)
    timed("embedded text", lambda: with_embedded(Store(store_root / "bare"), config, silent))
    resolved = with_embedded(store, config, silent)
    base = load_base(config)
    timed("read and tokenise", lambda: tokenise(resolved, base.tokenizer_json))
    parts = only(store_root, "corpus")["figures"]["parts"]
    corpus = open_corpus(store, parts)
    policies = {one.name: policy_of(one, config.training.temperature) for one in config.corpus.datasets}
    longest = max(config.corpus.max_query_tokens, config.corpus.max_passage_tokens)
    folders = [base.folder]

    def train(key: str) -> None:
        member = json.loads((store_root / "member" / key / "artifact.json").read_text())
        plan = open_plan(store, bag_of(store_root, member["inputs"]["bag"]))
        encoder = load_encoder(base.folder, config.model, config.training.dropout)
        reader = BatchReader(corpus, config.training.negatives, config.seed, 0, 1)
        steps = member["figures"]["steps"]
        loop = Loop(
            encoder,
            Plan(steps, lambda index: reader.read(plan.step(index)), policies, longest),
            config.training,
            config.seed,
            Group(0, 1),
        )
        loop.run(Listeners(lambda done, figures: None, lambda done: None))
        trained = load_encoder(base.folder, config.model, config.training.dropout)
        weights = loop.weights.full(averaged=True)
        with torch.no_grad():
            for name, parameter in trained.trainable().items():
                parameter.copy_(weights[name])
        folder = store_root / "bare" / key
        folder.mkdir(parents=True)
        tokenizer = load_tokenizer(base.folder, config.model)
        save_model(trained, tokenizer, folder, prompts(config), base.max_tokens)
        folders.append(folder)

    for path in sorted((store_root / "member").glob("*/artifact.json")):
        timed(f"train {path.parent.name[:8]}", lambda key=path.parent.name: train(key))
    timed("merge", lambda: folders.append(merge(store_root, config, folders)))
    timed("evaluate", lambda: evaluate(resolved, folders))


def bag_of(store_root: Path, fingerprint: str) -> str:
    """Key of the bag with a fingerprint."""
    paths = (store_root / "bag").glob("*/artifact.json")
    return next(path.parent.name for path in paths if json.loads(path.read_text())["fingerprint"] == fingerprint)


def tokenise(config: RunConfig, tokenizer: str) -> None:
    """Read every source and tokenise its texts with the limits of the configuration."""
    from tokenizers import Tokenizer

    worker = Tokenizer.from_str(tokenizer)
    worker.enable_truncation(config.corpus.max_passage_tokens)
    for dataset in config.corpus.datasets:
        texts: list[str] = []
        for line in Path(dataset.source).read_text(encoding="utf-8").splitlines():
            for value in json.loads(line).values():
                texts += value if isinstance(value, list) else [str(value)]
        worker.encode_batch_fast(texts)


def merge(store_root: Path, config: RunConfig, folders: list[Path]) -> Path:
    """Merge the members in this process."""
    from boom_ray.merging.recipe import MemberRef
    from boom_ray.merging.run import MODEL, merge_here
    from boom_ray.model.folder import weights_fingerprint
    from boom_ray.store import Store

    base, *members = [MemberRef(path.name, str(path), weights_fingerprint(path), 1) for path in folders]
    return merge_here(Store(store_root / "bare"), members, base, config.merge).local() / MODEL


def evaluate(config: RunConfig, folders: list[Path]) -> None:
    """Every model on every task with plain mteb and sentence-transformers."""
    import mteb
    from sentence_transformers import SentenceTransformer

    from boom_ray.evaluation.local_tasks import load_task

    for folder in folders:
        model = SentenceTransformer(str(folder), device="cpu")
        for task in config.evaluation.tasks:
            mteb.evaluate(model, load_task(task, config.evaluation.seed), cache=None, show_progress_bar=False)


def timed(name: str, work: Callable[[], object]) -> None:
    """Run and print seconds."""
    started = time.monotonic()
    work()
    print(f"  bare: {name:20} {time.monotonic() - started:7.1f} s", flush=True)


def only(store_root: Path, kind: str) -> dict:
    """The manifest of the one artifact of a kind."""
    (path,) = (store_root / kind).glob("*/artifact.json")
    return json.loads(path.read_text())


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="conf/quickstart.yaml")
    parser.add_argument("--threads", type=int, default=2, help="torch threads of the bare process")
    parser.add_argument("--finished", nargs=2, metavar=("STORE", "SECONDS"), help="a job that has just run")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(arguments.config, arguments.bare, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Path(arguments.finished[0]).absolute() if arguments.finished else Path(folder) / "store"
        ours = float(arguments.finished[1]) if arguments.finished else run_job(arguments.config, store)
        alone = run_bare(arguments.config, store, arguments.threads)
    print(f"job with Ray {ours:.1f} s, one bare process {alone:.1f} s, ratio {ours / alone:.2f}")


if __name__ == "__main__":
    main()
