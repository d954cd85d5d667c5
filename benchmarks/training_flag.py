"""One contestant of `benchmarks/training.py`: FlagEmbedding's own finetuning on batches that are given to it.

    flag-venv/bin/python benchmarks/training_flag.py SPEC.json

Runs under a Python that has FlagEmbedding 1.4.2 (with transformers 5.23: 5.24 lacks a module that it imports) and
imports nothing of boom_ray. Dataset, collator, model, loss, optimizer and loop are FlagEmbedding's (encoder-only
embedder); what is added here only looks on. Paths in SPEC.json are relative to its folder. It may also hold:

- ``dropout``: probability written into the model's configuration, null for the model's own (default 0)
- ``warmup_ratio``: share of the steps in which the rate rises before its linear fall (default 0.1, as its examples)
- ``workers``: processes that tokenise ahead (default 2 on a GPU, 0 on CPUs, where they would take the trainer's cores)
- ``pad_to_multiple_of``: default 8 on a GPU, as its examples, null on CPUs
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from FlagEmbedding.finetune.embedder.encoder_only.base import (
    EncoderOnlyEmbedderDataArguments,
    EncoderOnlyEmbedderModelArguments,
    EncoderOnlyEmbedderRunner,
    EncoderOnlyEmbedderTrainer,
    EncoderOnlyEmbedderTrainingArguments,
)
from transformers import TrainerCallback


class Watched(EncoderOnlyEmbedderTrainer):
    """Its trainer, which also keeps every step's loss, real tokens and padded tokens; no step waits for them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """Its loss, kept unsmoothed: what Trainer logs is a mean."""
        loss: torch.Tensor = super().compute_loss(model, inputs, **kwargs)
        masks = [inputs[side]["attention_mask"] for side in ("queries", "passages")]
        self.kept.append((loss.detach().float(), masks[0].sum() + masks[1].sum(), sum(map(torch.numel, masks))))
        return loss


class Runner(EncoderOnlyEmbedderRunner):
    """Its runner with the trainer that is watched; given batches need none of its same_dataset_within_batch."""

    def load_trainer(self) -> Watched:
        """As its own but for the class."""
        return Watched(
            model=self.model,
            args=self.training_args,
            train_dataset=self.train_dataset,
            data_collator=self.data_collator,
            processing_class=self.tokenizer,
        )


class Clock(TrainerCallback):
    """Wall and CPU seconds at the end of two steps; step 0 ends when training begins."""

    def __init__(self, first: int, last: int) -> None:
        self.steps = (first, last)
        self.marks: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the clocks if this is one of the two steps; the GPU is waited for at no other."""
        if state.global_step in self.steps:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.marks.append((time.perf_counter(), cpu_seconds()))

    on_train_begin = on_step_end


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that tokenise for it, living or ended."""
    own = psutil.Process()
    living = sum(sum(child.cpu_times()[:2]) for child in own.children())
    return time.process_time() + sum(own.cpu_times()[2:4]) + living  # [2:4]: of ended children


def write_data(spec: dict[str, Any], source: Path, target: Path) -> None:
    """The batches in FlagEmbedding's form, and the last once more.

    Its loader reads one batch ahead. With one more to read, the timed steps hold as many readings as updates; max_steps
    ends the run before that batch is trained on.
    """
    batches = [json.loads(line)["examples"] for line in source.open()][: spec["steps"]]
    negatives = {len(example["negatives"]) for batch in batches for example in batch}
    if [len(batch) for batch in batches] != [spec["batch_size"]] * spec["steps"] or negatives != {spec["negatives"]}:
        sys.exit(f"{source} does not hold the steps, batch_size and negatives that SPEC.json tells of")
    with target.open("w") as out:
        for example in (example for batch in [*batches, batches[-1]] for example in batch):
            row = {"query": example["query"], "pos": [example["positive"]], "neg": example["negatives"]}
            out.write(json.dumps(row) + "\n")


def model_folder(source: Path, dropout: float | None, target: Path) -> Path:
    """The model with another dropout; FlagEmbedding has no setting for it but the model's configuration."""
    if dropout is None:
        return source
    target.mkdir()
    for file in source.iterdir():
        if file.name != "config.json":
            (target / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_text())
    changed = {name: dropout for name, old in config.items() if "dropout" in name and isinstance(old, int | float)}
    (target / "config.json").write_text(json.dumps(config | changed))
    return target


def make_runner(spec: dict[str, Any], model: Path, data: Path, place: Path) -> Runner:
    """Its runner with its best usual settings for one process."""
    cuda = spec["device"] == "cuda"
    training = EncoderOnlyEmbedderTrainingArguments(
        output_dir=str(place / "out"),
        max_steps=spec["steps"],
        per_device_train_batch_size=spec["batch_size"],
        learning_rate=spec["learning_rate"],
        warmup_steps=spec.get("warmup_ratio", 0.1),  # below 1 it is a share of the steps
        temperature=spec["temperature"],
        sentence_pooling_method="mean",
        normalize_embeddings=True,
        bf16=spec["bf16"],
        use_cpu=not cuda,
        train_sampling_strategy="sequential",  # Trainer's own way to keep the order of the file
        dataloader_num_workers=spec.get("workers", 2 if cuda else 0),
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # on a GPU it would wait for every loss
        report_to="none",
        disable_tqdm=True,
    )
    arguments = EncoderOnlyEmbedderDataArguments(
        train_data=[str(data)],
        cache_path=str(place / "cache"),
        train_group_size=1 + spec["negatives"],  # it draws all K of K negatives: their order may change, the loss not
        query_max_len=spec["query_tokens"],
        passage_max_len=spec["passage_tokens"],
        pad_to_multiple_of=spec.get("pad_to_multiple_of", 8 if cuda else None),
    )
    runner = Runner(EncoderOnlyEmbedderModelArguments(model_name_or_path=str(model)), arguments, training)
    runner.model.float()  # transformers 5 keeps the type that weights are stored in; Trainer's bf16 is autocast
    return runner


def report(spec: dict[str, Any], runner: Runner, marks: list[tuple[float, float]]) -> dict[str, Any]:
    """The figures of a finished run."""
    args, pairs = runner.training_args, (spec["steps"] - spec["warm"]) * spec["batch_size"]
    losses, real, padded = zip(*runner.trainer.kept, strict=True)
    wall, cpu = (end - start for start, end in zip(*marks, strict=True))
    return {
        "name": "flagembedding",
        "pairs_per_s": pairs / wall,
        "cpu_s_per_1000_pairs": 1000 * cpu / pairs,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": [loss.item() for loss in losses],
        "padding_share": 1 - sum(map(int, real[spec["warm"] :])) / sum(padded[spec["warm"] :]),
        "settings": f"{args.device.type}, {torch.get_num_threads()} threads, "
        f"{'bf16 autocast over float32 weights' if args.bf16 else 'float32'}, mean pooling, normalised, "
        f"{runner.model.model.config._attn_implementation} attention, {args.optim.value}, linear decay after "
        f"{args.warmup_steps:g} warm-up, padding to the longest (multiple of {runner.data_args.pad_to_multiple_of}), "
        f"dropout {spec.get('dropout', 0.0)}, {args.dataloader_num_workers} workers (not in peak_rss_mb)",
        "version": f"{version('FlagEmbedding')} (torch {torch.__version__}, transformers {version('transformers')})",
    }


def main() -> None:
    """Train as SPEC.json says and print the figures as the last line."""
    path = Path(sys.argv[1]).resolve()
    spec = json.loads(path.read_text())
    torch.set_num_threads(spec["threads"])
    if not 0 <= spec["warm"] < spec["steps"]:
        sys.exit(f"warm={spec['warm']} leaves no step of {spec['steps']} to time")
    if spec["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit("device is cuda, but this Python's torch sees no GPU")
    scratch = path.parent / spec["scratch"]
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flag-", dir=scratch) as folder:
        place = Path(folder)
        write_data(spec, path.parent / spec["data"], place / "train.jsonl")
        model = model_folder(path.parent / spec["model"], spec.get("dropout", 0.0), place / "model")
        runner = make_runner(spec, model, place / "train.jsonl", place)
        clock = Clock(spec["warm"], spec["steps"])
        runner.trainer.add_callback(clock)
        runner.trainer.train()  # not runner.run(), which saves the model
        print(json.dumps(report(spec, runner, clock.marks)), flush=True)


if __name__ == "__main__":
    main()
