"""Contestants of `benchmarks/training.py`: each runs in a fresh process and prints one JSON line at its end.

    python benchmarks/training_runs.py SPEC.json

The specification names the contestant (``ours`` or ``sentence-transformers``), the model folder, the file of batches,
and how they are trained; see `benchmarks/training.py`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from training_data import read_batches

Spec = dict[str, Any]


class Clock:
    """Wall and processor time of the steps after the warm-up; ``mark`` is called after every step."""

    def __init__(self, spec: Spec) -> None:
        """Nothing is timed yet."""
        self.spec, self.done = spec, 0
        self.start: tuple[float, float] | None = None
        self.stop = (0.0, 0.0)

    def mark(self) -> None:
        """A step is done."""
        self.done += 1
        if self.done in {self.spec["warm"], self.spec["steps"]}:
            if self.spec["device"] == "cuda":
                torch.cuda.synchronize()
            now = (time.perf_counter(), time.process_time())
            if self.start is None:
                self.start = now
            self.stop = now

    def figures(self) -> dict[str, float]:
        """Rates of the timed steps, and the most memory that was ever held."""
        assert self.start is not None
        pairs = (self.spec["steps"] - self.spec["warm"]) * self.spec["batch_size"]
        wall, cpu = (after - before for before, after in zip(self.start, self.stop, strict=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.spec["device"] == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**20
        return {
            "seconds": wall,
            "pairs_per_s": pairs / wall,
            "cpu_s_per_1000_pairs": 1000 * cpu / pairs,
            "peak_memory_mb": memory,
        }


def ours(spec: Spec) -> dict[str, Any]:
    """boom_ray's loop on tokens from Arrow files, as a member's worker runs it, without Ray."""
    from boom_ray.artifacts.batches import BatchReader
    from boom_ray.artifacts.plan import Step
    from boom_ray.config import ModelConfig, ResourcesConfig, TrainingConfig
    from boom_ray.model.encoder import load_encoder
    from boom_ray.model.losses.policy import Policy
    from boom_ray.training.group import Group
    from boom_ray.training.loop import Listeners, Loop, Plan

    began = time.perf_counter()
    corpus, rows = _token_corpus(spec)
    tokenised = time.perf_counter() - began
    config = TrainingConfig(
        batch_size=spec["batch_size"],
        negatives=spec["negatives"],
        learning_rate=spec["learning_rate"],
        warmup_ratio=0.0,
        decay="constant",
        precision="bfloat16" if spec["bf16"] else "float32",
        log_every=spec.get("log_every", 1 if spec["device"] == "cpu" else spec["steps"] - spec["warm"]),
        resources=ResourcesConfig(cpus_per_worker=spec["threads"]),
        **spec.get("training", {}),
    )
    encoder = load_encoder(Path(spec["model"]), ModelConfig(**spec.get("model_config", {})), 0.0).to(spec["device"])
    reader = BatchReader(corpus, spec["negatives"], 0, 0, 1)
    policy = Policy("infonce", spec["temperature"], True, ("query_to_passage",), "joint", (), None, 1.0, 0.0)
    plan = Plan(
        spec["steps"],
        lambda step: reader.read(Step(rows[step][0], 0, rows[step][1])),
        dict.fromkeys(corpus, policy),
        max(spec["query_tokens"], spec["passage_tokens"]),
    )
    loop = Loop(encoder, plan, config, 0, Group(0, 1))
    clock, logged = Clock(spec), []
    _after_steps(loop, clock.mark)
    loop.run(Listeners(lambda done, figures: logged.append(figures), lambda done: None))
    last = logged[-1]
    return {
        **clock.figures(),
        "losses": [figures["loss"] for figures in logged],
        "padding_share": last["padding_share"],
        "tokenise_s": tokenised,
        "settings": f"{loop.settings.layout.value}, {loop.settings.micro_batch_tokens} tokens, "
        f"{loop.settings.kept_tokens} kept",
        "parts": {name: round(value, 3) for name, value in last.items() if name.startswith("time/")},
    }


def _after_steps(loop: Any, mark: Callable[[], None]) -> None:
    """Call a function after every update."""
    update = loop._update

    def timed(*arguments: Any) -> None:
        update(*arguments)
        mark()

    loop._update = timed


def _token_corpus(spec: Spec) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The batches as token files, through the corpus stage's own tokeniser; steps as (dataset, rows)."""
    import numpy as np
    import pyarrow as pa

    from boom_ray.artifacts.tokens import TokenDataset
    from boom_ray.config import ModelConfig
    from boom_ray.corpus.examples import Example
    from boom_ray.corpus.schema import EXAMPLES, TOKENS
    from boom_ray.corpus.tokenizing import TokenizerSpec, TokenRules, tokenize
    from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json

    model = ModelConfig(**spec.get("model_config", {}))
    tokenizer = TokenizerSpec(tokenizer_json(load_tokenizer(Path(spec["model"]), model)), model)
    rules = TokenRules("", False, spec["query_tokens"], spec["passage_tokens"])
    examples: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for batch in read_batches(Path(spec["data"])):
        own = examples.setdefault(batch["dataset"], [])
        rows.append((batch["dataset"], np.arange(len(own), len(own) + len(batch["examples"]))))
        for one in batch["examples"]:
            made = Example(one["query"], [one["positive"]], one["negatives"])
            own.append({"id": made.id(), **vars(made)})
    corpus = {}
    for name, own in examples.items():
        path = Path(spec["scratch"]) / f"{name}.arrow"
        table = pa.Table.from_pylist(own, schema=EXAMPLES).combine_chunks().to_batches()[0]
        with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, TOKENS) as writer:
            writer.write_batch(tokenize(table, tokenizer, rules))
        corpus[name] = TokenDataset([path])
    return corpus, rows


def sentence_transformers(spec: Spec) -> dict[str, Any]:
    """SentenceTransformerTrainer on the same batches in the same order."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    options = {"attn_implementation": spec["attention"]} if spec.get("attention") else {}
    model = SentenceTransformer(spec["model"], device=spec["device"], model_kwargs=options)
    model.max_seq_length = spec["passage_tokens"]
    if spec.get("mini_batch_tokens"):
        loss = losses.CachedMultipleNegativesRankingLoss(
            model, 1 / spec["temperature"], mini_batch_num_tokens=spec["mini_batch_tokens"]
        )
    else:
        loss = losses.MultipleNegativesRankingLoss(model, 1 / spec["temperature"])
    clock, seen = Clock(spec), _Seen(loss)

    class Marks(TrainerCallback):
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            clock.mark()

    def in_order(dataset: Any, batch_size: int, drop_last: bool, *rest: Any, **named: Any) -> BatchSampler:
        return BatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    arguments = SentenceTransformerTrainingArguments(
        f"{spec['scratch']}/st",
        per_device_train_batch_size=spec["batch_size"],
        max_steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        lr_scheduler_type="constant",
        bf16=spec["bf16"],
        use_cpu=spec["device"] == "cpu",
        batch_sampler=in_order,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=bool(spec.get("gradient_checkpointing")),
        dataloader_num_workers=spec.get("workers", 0),
        torch_compile=bool(spec.get("compile")),
    )
    rows = [
        {"anchor": one["query"], "positive": one["positive"]}
        | {f"negative_{number}": text for number, text in enumerate(one["negatives"])}
        for batch in read_batches(Path(spec["data"]))
        for one in batch["examples"]
    ]
    trainer = SentenceTransformerTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), loss=seen.loss, callbacks=[Marks()]
    )
    _no_dropout(model)
    trainer.train()
    return {**clock.figures(), **seen.figures(spec), "settings": _settings(spec)}


def _settings(spec: Spec) -> str:
    parts = ["bf16" if spec["bf16"] else "float32", spec.get("attention") or "sdpa"]
    parts += [f"cached, {spec['mini_batch_tokens']} tokens"] if spec.get("mini_batch_tokens") else ["merged forward"]
    parts += [f"{spec['workers']} loader processes"] if spec.get("workers") else []
    parts += [name for name in ("gradient_checkpointing", "compile") if spec.get(name)]
    return ", ".join(parts)


class _Seen:
    """Keeps every step's loss and counts tokens and padding of what the loss is given."""

    def __init__(self, loss: torch.nn.Module) -> None:
        self.loss, self.losses, self.tokens, self.slots = loss, [], 0, 0
        forward = loss.forward

        def watched(features: Any, labels: Any = None) -> torch.Tensor:
            features = list(features)
            for one in features:
                self.tokens += one["attention_mask"].sum().detach()
                self.slots += one["attention_mask"].numel()
            found = forward(features, labels)
            self.losses.append(found.detach())
            return found

        loss.forward = watched

    def figures(self, spec: Spec) -> dict[str, Any]:
        return {
            "losses": [float(loss) for loss in self.losses],
            "padding_share": 1 - float(self.tokens) / self.slots,
        }


def _no_dropout(model: torch.nn.Module) -> None:
    """All contestants train without, so that their losses can be compared."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def main() -> None:
    """Run the contestant of the specification."""
    spec: Spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    found = {"ours": ours, "sentence-transformers": sentence_transformers}[spec["contestant"]](spec)
    print(json.dumps({"name": spec["contestant"], **found}))


if __name__ == "__main__":
    main()
