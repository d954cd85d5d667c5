"""Second pass: a Ray task per bucket drops duplicates and overlaps, sorts by id, tokenises and commits a part."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from boom_ray.artifacts.tokens import EXAMPLE_FILE, PART, TOKEN_FILE
from boom_ray.config import DatasetConfig
from boom_ray.corpus.decontaminate import Bools, EvaluationTexts, NearTexts, near_overlaps, overlaps
from boom_ray.corpus.labels import COLUMNS, Pools, candidates, contrast, make_pools
from boom_ray.corpus.schema import EXAMPLES, TOKENS
from boom_ray.corpus.staging import Stage, no_space
from boom_ray.corpus.tokenizing import TokenizerSpec, TokenRules, tokenize
from boom_ray.errors import DataError
from boom_ray.store import Artifact, Draft, Store, artifact_key

ROWS_PER_BATCH = 8192
SINGLE = "only text of its label"
FORMAT = 1  # raise it when the same rows give other parts


@dataclass(frozen=True)
class Sealing:
    """What all tasks share.

    Attributes:
        store: where parts go.
        stage: the finished first pass.
        tokenizer: tokenizer and templates.
        held_out: keys of the evaluation sets' texts by task.
        near: those texts themselves, if what is nearly one of them is left out, too.
    """

    store: Store
    stage: Stage
    tokenizer: TokenizerSpec
    held_out: EvaluationTexts
    near: NearTexts | None = None


@dataclass(frozen=True)
class SealPlan:
    """What the tasks of one dataset share.

    Attributes:
        dataset: its configuration.
        key: key of the dataset's artifact.
        rules: how texts become tokens.
    """

    dataset: DatasetConfig
    key: str
    rules: TokenRules

    def part_key(self, bucket: str) -> str:
        """Key of the part made of a bucket."""
        return artifact_key(PART, {"bucket": bucket}, {"dataset": self.key}, FORMAT)


def bucket_pool(sealing: Sealing, plan: SealPlan, bucket: str) -> pa.Table:
    """The candidate texts that one bucket of a labelled dataset has, columns `COLUMNS`."""
    examples = _distinct(sealing.stage.read(plan.key, bucket, [*COLUMNS, "positives"]))
    return candidates(_clean(examples, sealing)[0].select(COLUMNS))


def join_pools(plan: SealPlan, *pools: pa.Table) -> Pools:
    """Candidate texts of a labelled dataset from the `bucket_pool` of every bucket.

    Raises:
        DataError: there are fewer than two labels.
    """
    try:
        return make_pools(pools)
    except DataError as error:
        raise DataError(f"Dataset {plan.dataset.name}: {error}") from None


def _clean(examples: pa.Table, sealing: Sealing) -> tuple[pa.Table, dict[str, Bools], dict[str, Bools]]:
    """The examples without those that overlap with evaluation sets.

    Returns:
        What is kept; which of all rows overlap, by task; which of those that do not are near-duplicates, by task.
    """
    exact = overlaps(examples, sealing.held_out)
    examples = examples.filter(pa.array(~_union(examples.num_rows, exact)))
    if sealing.near is None:
        return examples, exact, {}
    near = near_overlaps(examples, sealing.near)
    return examples.filter(pa.array(~_union(examples.num_rows, near))), exact, near


def seal(sealing: Sealing, plan: SealPlan, bucket: str, pools: Pools | None) -> Artifact:
    """Make the part of one bucket, unless the store has it.

    Returns:
        The part: `EXAMPLE_FILE` (schema `EXAMPLES`) and `TOKEN_FILE` (schema `TOKENS`), rows sorted by id and aligned;
        figures: rows, what was left out, tokens, and the content hash.

    Raises:
        StoreError: no space or no permission.
        FileNotFoundError: the staged files are gone and the store has no such part.
    """
    key = plan.part_key(bucket)
    found = sealing.store.get(PART, key)
    if found is not None:
        return found
    draft = sealing.store.draft(PART, key)
    try:
        _build(draft, sealing, plan, bucket, pools)
        return sealing.store.commit(draft, PART, key, {"bucket": bucket}, {"dataset": plan.key})
    except FileNotFoundError:
        found = sealing.store.get(PART, key)  # another run of the same corpus was faster and tidied up
        if found is None:
            raise
        return found
    except OSError as error:
        raise no_space(sealing.store, error) from error
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def _build(draft: Draft, sealing: Sealing, plan: SealPlan, bucket: str, pools: Pools | None) -> None:
    staged = sealing.stage.read(plan.key, bucket)
    distinct = _distinct(staged)
    examples, exact, near = _clean(distinct, sealing)
    figures: Counter[str] = Counter()
    content = 0
    writers = _Writers(draft.path)
    with writers:
        for batch in _batches(examples, plan, pools, figures):
            tokens = tokenize(batch, sealing.tokenizer, plan.rules)
            writers.write(batch, tokens)
            figures.update(_measure(tokens))
            content = (content + content_sum(tokens)) % (1 << 128)
    draft.figures = {
        "rows": figures.pop("rows", 0),
        "duplicates": staged.num_rows - distinct.num_rows,
        **_counted("overlapping", exact),
        **_counted("near_duplicates", near),
        "set_aside": {SINGLE: figures.pop(SINGLE)} if figures[SINGLE] else {},
        "tokens": {name: figures[name] for name in _SIZES},
        "content": f"{content:032x}",
    }
    draft.fingerprint = draft.figures["content"]


def _counted(name: str, hits: dict[str, Bools]) -> dict[str, Any]:
    """How many rows there are, and how many of each task; a row can be of several."""
    rows = len(next(iter(hits.values()), []))
    return {
        name: int(_union(rows, hits).sum()),
        f"{name}_by_task": {task: int(hit.sum()) for task, hit in hits.items()},
    }


def _batches(
    examples: pa.Table, plan: SealPlan, pools: Pools | None, figures: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Finished examples, `ROWS_PER_BATCH` staged rows at a time."""
    for start in range(0, examples.num_rows, ROWS_PER_BATCH):
        piece = examples.slice(start, ROWS_PER_BATCH)
        if pools is not None:
            wanted = plan.dataset.label_negatives
            piece, single = contrast(piece, pools, plan.dataset.label_positive, wanted)
            figures[SINGLE] += single
        if piece.num_rows:
            yield from piece.combine_chunks().to_batches()


class _Writers:
    """The two files of a part, written batch by batch."""

    def __init__(self, folder: Path) -> None:
        self._stream = pa.OSFile(str(folder / TOKEN_FILE), "wb")
        self._tokens = pa.ipc.new_file(self._stream, TOKENS)
        self._examples = pq.ParquetWriter(folder / EXAMPLE_FILE, EXAMPLES, compression="zstd")

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *error: object) -> None:
        for one in (self._tokens, self._stream, self._examples):
            one.close()

    def write(self, examples: pa.RecordBatch, tokens: pa.RecordBatch) -> None:
        self._examples.write_batch(examples.cast(EXAMPLES))
        self._tokens.write_batch(tokens)


def _distinct(table: pa.Table) -> pa.Table:
    """Rows sorted by id, one per id."""
    table = table.sort_by("id").combine_chunks()
    if table.num_rows < 2:
        return table
    ids = table["id"].combine_chunks()
    raw = np.frombuffer(ids.buffers()[1], dtype=">u8").reshape(-1, 2)[ids.offset : ids.offset + len(ids)]
    first = np.concatenate([[True], np.any(raw[1:] != raw[:-1], axis=1)])
    return table if first.all() else table.filter(pa.array(first)).combine_chunks()


def _union(rows: int, hits: dict[str, Bools]) -> Bools:
    result = np.zeros(rows, dtype=np.bool_)
    for hit in hits.values():
        result |= hit
    return result


_SIZES = ("queries", "positives", "negatives", "query_tokens", "positive_tokens", "negative_tokens", "label_rows")


def _measure(tokens: pa.RecordBatch) -> dict[str, int]:
    """Numbers of texts and tokens."""
    result = {"rows": tokens.num_rows, "queries": tokens.num_rows, "query_tokens": len(tokens["query"].flatten())}
    for role in ("positive", "negative"):
        texts = tokens[f"{role}s"].flatten()
        result |= {f"{role}s": len(texts), f"{role}_tokens": len(texts.flatten())}
    result["label_rows"] = tokens.num_rows - tokens["label_key"].null_count
    return result


def content_sum(tokens: pa.RecordBatch) -> int:
    """Sum over rows, modulo 2^128, of XXH3-128 of id and token ids.

    A sum does not depend on how rows are divided among batches and parts; ids are distinct, so it stands for the
    ordered content.
    """
    ids = tokens["id"].to_pylist()
    query = _row_bytes(tokens["query"])
    texts = [_nested_bytes(tokens[role]) for role in ("positives", "negatives")]
    rows = zip(ids, query, *texts, strict=True)
    return sum(xxhash.xxh3_128_intdigest(b"".join(row)) for row in rows) % (1 << 128)


def _row_bytes(lists: pa.ListArray) -> Iterator[bytes]:
    """Length and values of every row of a list of integers, little-endian."""
    offsets = lists.offsets.to_numpy()
    values = lists.values.to_numpy(zero_copy_only=False).astype("<i4").tobytes()
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield (end - start).to_bytes(4, "little") + values[4 * start : 4 * end]


def _nested_bytes(lists: pa.ListArray) -> Iterator[bytes]:
    offsets = lists.offsets.to_numpy()
    inner = list(_row_bytes(lists.values))
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield (end - start).to_bytes(4, "little") + b"".join(inner[start:end])


def part_figures(parts: list[Artifact]) -> dict[str, Any]:
    """Figures of all parts of a dataset together; parts of earlier versions know no near-duplicates and have none."""
    total: dict[str, Any] = {name: sum(part.figures.get(name, 0) for part in parts) for name in _SUMS}
    for name in _TABLES:
        merged: Counter[str] = Counter()
        for part in parts:
            merged.update(part.figures.get(name, {}))
        total[name] = dict(sorted(merged.items()))
    total["content"] = f"{sum(int(part.figures['content'], 16) for part in parts) % (1 << 128):032x}"
    return total


_SUMS = ("rows", "duplicates", "overlapping", "near_duplicates")
_TABLES = ("overlapping_by_task", "near_duplicates_by_task", "set_aside", "tokens")
