"""Tiny task folders of every type, made of the words that the tiny model knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boom_ray.config import TaskConfig

TOPICS = {
    "animals": "cat dog bird fish tree river mountain",
    "money": "bank card money account transfer pay price",
    "code": "array index function class method string integer",
}
VERBS = ("look", "see", "hear", "find")
TYPES = ("retrieval", "reranking", "sts", "pair", "classification", "clustering", "bitext")


def sentences(count: int) -> list[tuple[str, str]]:
    """``count`` different (text, topic) pairs."""
    topics = list(TOPICS)
    found = []
    for number in range(count):
        topic = topics[number % len(topics)]
        words = TOPICS[topic].split()
        first, second = words[number % 7], words[(number // 3) % 7]
        found.append((f"the {first} and a {second} {VERBS[number % 4]} {number}", topic))
    return found


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_retrieval(folder: Path, qrels: list[tuple[str, str, Any]] | None = None, queries: int = 6) -> TaskConfig:
    texts = sentences(30)
    passages = [{"_id": f"p{n}", "title": topic, "text": text} for n, (text, topic) in enumerate(texts)]
    write_jsonl(folder / "corpus.jsonl", passages)
    write_jsonl(
        folder / "queries.jsonl",
        [{"_id": f"q{n}", "text": f"where is {text.split()[1]} {n}"} for n, (text, _) in enumerate(texts[:queries])],
    )
    if qrels is None:
        qrels = [(f"q{n}", f"p{n}", 1) for n in range(queries)] + [("q0", "p3", 2), ("q1", "p4", 0)]
    (folder / "qrels").mkdir(exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TaskConfig(name=folder.name, path=str(folder), type="retrieval")


def write_task(folder: Path, kind: str) -> TaskConfig:
    """A sound folder of the given type and its configuration."""
    if kind == "retrieval":
        return write_retrieval(folder)
    texts = sentences(24)
    pairs = [(texts[n][0], texts[(n * 5 + 3) % 24][0], n % 6) for n in range(24)]
    if kind == "reranking":
        rows: list[Any] = [
            {"query": a, "positive": [b, f"{b} too"], "negative": [text for text, _ in texts[:5] if text != b][:4]}
            for a, b, _ in pairs[:5]  # a text that is both would be a tie, which rounding decides
        ]
    elif kind == "sts":
        rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in pairs]
    elif kind == "pair":
        rows = [{"sentence1": a, "sentence2": b, "score": score % 2} for a, b, score in pairs]
    elif kind == "bitext":
        rows = [{"sentence1": a, "sentence2": f"{a} {b}"} for a, b, _ in pairs]
    else:
        rows = [{"text": text, "label": topic} for text, topic in texts]
    write_jsonl(folder / "test.jsonl", rows)
    if kind == "classification":
        write_jsonl(folder / "train.jsonl", [{"text": text, "label": topic} for text, topic in sentences(60)[24:]])
    return TaskConfig(name=folder.name, path=str(folder), type=kind)
