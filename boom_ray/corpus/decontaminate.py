"""Training examples whose query or positive is, exactly or nearly, a text of an evaluation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boom_ray.config import NearDuplicatesConfig
from boom_ray.hashing import U64, digest, normalized_text_key, text_key
from boom_ray.near_duplicates import I64, NearIndex

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
    texts, rows = _texts(examples)
    keys = np.fromiter(map(normalized_text_key, texts), dtype=np.uint64, count=len(texts))
    found: dict[str, Bools] = {}
    for task, known in sorted(held_out.items()):
        hit = rows[np.isin(keys, known)]
        if len(hit):
            found[task] = _mask(examples.num_rows, hit)
    return found


@dataclass(frozen=True)
class NearTexts:
    """The texts of all evaluation tasks, so indexed that near-duplicates of them are found.

    Attributes:
        index: every text once.
        places: task to the places of its texts in the index, ascending.
    """

    index: NearIndex
    places: dict[str, I64]

    @classmethod
    def of(cls, texts: Mapping[str, Sequence[str]], settings: NearDuplicatesConfig) -> NearTexts:
        """Index the texts of every task."""
        known = {
            text: place for place, text in enumerate(dict.fromkeys(text for own in texts.values() for text in own))
        }
        places = {task: np.unique([known[text] for text in own]).astype(np.int64) for task, own in texts.items()}
        return cls(NearIndex.of(list(known), settings), places)


def near_overlaps(examples: pa.Table, near: NearTexts) -> dict[str, Bools]:
    """Which examples have their query, or one of their positives, nearly among a task's texts; equal ones count, too.

    Args:
        examples: with columns ``query`` and ``positives``.
        near: the texts of every task.

    Returns:
        Task to (rows,) booleans; tasks without such examples are left out.
    """
    texts, rows = _texts(examples)
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    matches = near.index.find(list(distinct))
    which = np.fromiter((distinct[text] for text in texts), dtype=np.int64, count=len(texts))
    found: dict[str, Bools] = {}
    for task, places in sorted(near.places.items()):
        hit = rows[np.isin(which, matches.asked[np.isin(matches.held, places)])]
        if len(hit):
            found[task] = _mask(examples.num_rows, hit)
    return found


def held_out_digest(held_out: EvaluationTexts) -> str:
    """Hash of all tasks' texts; their names count too, since counts are kept by name."""
    return digest({task: [len(keys), _bytes_digest(keys)] for task, keys in held_out.items()})


def near_texts_digest(texts: Mapping[str, Sequence[str]]) -> str:
    """Hash of the texts that near-duplicates are looked for of, by task; their order does not count."""
    return held_out_digest({task: np.unique(_text_keys(own)) for task, own in texts.items()})


def _text_keys(texts: Sequence[str]) -> U64:
    return np.fromiter(map(text_key, texts), dtype=np.uint64, count=len(texts))


def _bytes_digest(keys: U64) -> str:
    return digest(np.ascontiguousarray(keys, dtype="<u8").tobytes().hex())


def _texts(examples: pa.Table) -> tuple[list[str], I64]:
    """All queries and positives, and the row of each."""
    positives = examples["positives"].combine_chunks()
    numbers = np.arange(examples.num_rows)
    owners = np.repeat(numbers, positives.value_lengths().to_numpy(zero_copy_only=False))
    return [*examples["query"].to_pylist(), *positives.flatten().to_pylist()], np.concatenate([numbers, owners])


def _mask(size: int, rows: I64) -> Bools:
    result = np.zeros(size, dtype=np.bool_)
    result[rows] = True
    return result
