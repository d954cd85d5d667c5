"""A small token corpus written without the corpus stage, for tests of what reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from boom_ray.artifacts.tokens import PART, TOKEN_FILE
from boom_ray.corpus.schema import TOKENS
from boom_ray.hashing import mix64, stream_key, text_id, text_key
from boom_ray.store import Store


def words(dataset: str, number: int, role: str, length: int, vocabulary: int = 100) -> list[int]:
    """A pseudo-random text of token ids: [CLS]=2 … [SEP]=3 around ids from 5 on."""
    hashes = mix64(np.arange(length, dtype=np.uint64), stream_key(dataset, number, role))
    return [2, *(5 + (hashes % np.uint64(vocabulary)).astype(int)).tolist(), 3]


def example(
    dataset: str, number: int, negatives: int, label: str | None, positives: int = 1, scored: bool = False
) -> dict[str, object]:
    """One row of the TOKENS schema; with ``scored`` it has a grade and, if its number is even, a teacher's scores."""
    length = 3 + number % 7
    positive = [words(dataset, number, f"positive{index or ''}", length) for index in range(positives)]
    taught = scored and number % 2 == 0
    negative = [words(dataset, number, f"negative{index}", 4) for index in range(negatives)]
    return {
        "id": text_id(dataset, str(number)),
        "query": words(dataset, number, "query", length),
        "positives": positive,
        "negatives": negative,
        "query_key": text_key(f"{dataset}/{number}/q"),
        "positive_keys": [text_key(f"{dataset}/{number}/p{index or ''}") for index in range(positives)],
        "negative_keys": [text_key(f"{dataset}/{number}/n{index}") for index in range(negatives)],
        "label_key": text_key(label) if label else None,
        "score": number % 5 / 4 if scored else None,
        "positive_scores": [number + index / 8 for index in range(positives)] if taught else None,
        "negative_scores": [-number - index / 8 for index in range(negatives)] if taught else None,
    }


def write_tokens(path: Path, dataset: str, rows: int, negatives: int = 2, labels: int = 0, batch: int = 16) -> Path:
    """Write a token file of ``rows`` examples sorted by id, in record batches of ``batch``."""
    made = [example(dataset, number, negatives, f"l{number % labels}" if labels else None) for number in range(rows)]
    return write_rows(path, made, batch)


def write_rows(path: Path, rows: list[dict[str, object]], batch: int = 16) -> Path:
    """Write a token file of rows of the TOKENS schema, sorted by id."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=TOKENS)
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, TOKENS) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def write_corpus(store: Store, sizes: dict[str, int], negatives: int = 2) -> dict[str, list[str]]:
    """Store one part per dataset; returns dataset to part keys."""
    parts = {}
    for name, rows in sizes.items():
        artifact = store.materialize(
            PART, {"name": name, "rows": rows}, {}, lambda draft, n=name, r=rows: _build(draft.path, n, r, negatives)
        )
        parts[name] = [artifact.key]
    return parts


def _build(folder: Path, name: str, rows: int, negatives: int) -> None:
    write_tokens(folder / TOKEN_FILE, name, rows, negatives)
