"""Training examples whose query or positive is a text of an evaluation set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boom_ray.hashing import U64, digest, normalized_text_key

EvaluationTexts = dict[str, U64]  # task name to sorted `normalized_text_key` of its texts
Bools = npt.NDArray[np.bool_]


def overlaps(examples: pa.Table, held_out: EvaluationTexts) -> dict[str, Bools]:
    """Which examples have their query, or one of their positives, among a task's texts.

    Case and white space do not count.

    Args:
        examples: with columns ``query`` and ``positives``.
        held_out: keys of the texts of every task.

    Returns:
        Task to (rows,) booleans; tasks without overlap are left out.
    """
    if not any(len(keys) for keys in held_out.values()) or examples.num_rows == 0:
        return {}
    queries = _keys(examples["query"].to_pylist())
    positives = examples["positives"].combine_chunks()
    lengths = positives.value_lengths().to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(examples.num_rows), lengths)
    keys = np.concatenate([queries, _keys(positives.flatten().to_pylist())])
    rows = np.concatenate([np.arange(examples.num_rows), owner])
    found: dict[str, Bools] = {}
    for task, known in sorted(held_out.items()):
        hit = np.unique(rows[np.isin(keys, known)])
        if len(hit):
            found[task] = np.zeros(examples.num_rows, dtype=np.bool_)
            found[task][hit] = True
    return found


def held_out_digest(held_out: EvaluationTexts) -> str:
    """Hash of all tasks' texts; their names count too, since counts are kept by name."""
    return digest({task: [len(keys), _bytes_digest(keys)] for task, keys in held_out.items()})


def _bytes_digest(keys: U64) -> str:
    return digest(np.ascontiguousarray(keys, dtype="<u8").tobytes().hex())


def _keys(texts: list[str]) -> U64:
    return np.fromiter(map(normalized_text_key, texts), dtype=np.uint64, count=len(texts))
