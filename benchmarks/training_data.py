"""Batches and models that all contestants of `benchmarks/training.py` get."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[2] / "shared" / "data"
SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "minilm": {
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "qwen3-0.6b": {
        "vocab_size": 151936,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "max_position_embeddings": 2048,
    },
}


def write_batches(path: Path, steps: int, batch_size: int, negatives: int, seed: int = 0) -> None:
    """Write steps of one dataset each, shuffled: one line per step, as `read_batches` reads them.

    Negatives are other passages of the dataset, drawn at random: their lengths are real, which is what costs time.

    Args:
        path: where to.
        steps: number of steps.
        batch_size: examples of a step.
        negatives: of an example; texts.
        seed: of the draw.
    """
    draw = random.Random(seed)
    batches: list[dict[str, Any]] = []
    for name, rows in _datasets():
        draw.shuffle(rows)
        passages = [passage for _, passage in rows]
        examples = [
            {"query": query, "positive": passage, "negatives": [draw.choice(passages) for _ in range(negatives)]}
            for query, passage in rows[: 40 * batch_size]
        ]
        for start in range(0, len(examples) - batch_size + 1, batch_size):
            batches.append({"dataset": name, "examples": examples[start : start + batch_size]})
    draw.shuffle(batches)
    if len(batches) < steps:
        raise SystemExit(f"only {len(batches)} batches of {batch_size} examples can be made; ask for fewer steps")
    path.write_text("".join(json.dumps(batch) + "\n" for batch in batches[:steps]), encoding="utf-8")


def _datasets() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Name and (query, passage) pairs of every retrieval dataset at hand."""
    if SHARED.is_dir():
        for path in sorted(SHARED.glob("*/train.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if "pos" in rows[0]:
                yield path.parent.name, [(row["query"], row["pos"][0]) for row in rows]
        return
    import tempfile

    from boom_ray.config import EmbeddedConfig
    from boom_ray.corpus.embedded import embedded_artifact
    from boom_ray.events import silent
    from boom_ray.store import Store

    with tempfile.TemporaryDirectory() as folder:
        made = embedded_artifact(Store(folder), EmbeddedConfig(), silent).local() / "train"
        for path in sorted(made.glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if "pos" in rows[0]:
                yield path.stem, [(row["query"], row["pos"][0]) for row in rows]


def write_long_batches(path: Path, steps: int, batch_size: int, negatives: int, words: int, seed: int = 0) -> None:
    """The same with random texts of so many words, long enough to be cut at any limit; for decoders."""
    draw = random.Random(seed)
    vocabulary = ["sort", "list", "file", "tree", "river", "city", "law", "water", "red", "small", "fast", "year"]

    def text() -> str:
        return " ".join(draw.choices(vocabulary, k=words))

    lines = []
    for _ in range(steps):
        examples = [
            {"query": text(), "positive": text(), "negatives": [text() for _ in range(negatives)]}
            for _ in range(batch_size)
        ]
        lines.append(json.dumps({"dataset": "random", "examples": examples}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_batches(path: Path) -> list[dict[str, Any]]:
    """Steps as dictionaries of ``dataset`` and ``examples`` (``query``, ``positive``, ``negatives``)."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_model(folder: Path, shape: str, tokenizer: Path) -> Path:
    """A model of a known shape with random weights as a sentence-transformers folder.

    Args:
        folder: where to.
        shape: key of `SHAPES`.
        tokenizer: folder whose tokenizer it gets (WordPiece; a decoder's larger vocabulary stays unused beyond it).
    """
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel, Qwen3Config, Qwen3Model

    from boom_ray.model.folder import write_modules

    torch.manual_seed(0)
    decodes = shape.startswith("qwen3")
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3Model(Qwen3Config(**SHAPES[shape])) if decodes else BertModel(BertConfig(**SHAPES[shape]))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(folder)
    pooling = "lasttoken" if decodes else "mean"
    write_modules(folder, int(SHAPES[shape]["hidden_size"]), pooling, True, {}, 512)
    return folder
