"""Random access to a corpus of tokens: memory-mapped Arrow files read row by row without copies.

The files are those of the corpus stage (schema `TOKENS` of `boom_ray.corpus.schema`), rows sorted by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boom_ray.errors import StoreError
from boom_ray.hashing import U64
from boom_ray.store import Artifact, Store

I32 = npt.NDArray[np.int32]
TOKEN_FILE = "tokens.arrow"
PART = "part"


@dataclass(frozen=True)
class TokenExample:
    """One example as views into the file.

    Attributes:
        query: (t,) token ids, prompt and special tokens included.
        positives: token ids of each positive.
        negatives: token ids of each hard negative.
        query_key: hash of the query's text.
        positive_keys: (P,) hashes of the positives' texts.
        negative_keys: (N,) hashes of the negatives' texts.
        label_key: hash of the label, None without one.
    """

    query: I32
    positives: Sequence[I32]
    negatives: Sequence[I32]
    query_key: int
    positive_keys: U64
    negative_keys: U64
    label_key: int | None


class TokenDataset:
    """All examples of one dataset.

    Attributes:
        ids: (n,) uint64, the first 8 bytes of each example's id, ascending.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Memory-map token files; parts in the order of their ids.

        Raises:
            StoreError: a file is missing or damaged.
        """
        blocks: list[_Block] = []
        for path in paths:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                blocks += [_Block(reader.get_batch(index)) for index in range(reader.num_record_batches)]
            except (OSError, pa.ArrowInvalid) as error:
                raise StoreError(f"The token file {path} cannot be read: {error}. Remove it and run again.") from error
        self._blocks = blocks
        self._starts = np.cumsum([0] + [block.rows for block in blocks])
        self.ids: U64 = np.concatenate([block.ids for block in blocks]) if blocks else np.empty(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    def example(self, row: int) -> TokenExample:
        """Example ``row``; constant time."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._blocks[place].example(int(row - self._starts[place]))


class _Block:
    """Numpy views of one record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.rows = batch.num_rows
        raw = np.frombuffer(batch.column("id").buffers()[1], dtype=">u8").reshape(-1, 2)
        self.ids = raw[: self.rows, 0].astype(np.uint64)
        self._query = _Lists(batch.column("query"))
        self._texts = {name: _Nested(batch.column(name)) for name in ("positives", "negatives")}
        self._keys = {name: _Lists(batch.column(name)) for name in ("positive_keys", "negative_keys")}
        self._query_key = batch.column("query_key").to_numpy()
        label = batch.column("label_key")
        self._label_null = label.is_null().to_numpy(zero_copy_only=False)
        self._label = label.fill_null(0).to_numpy(zero_copy_only=False)

    def example(self, row: int) -> TokenExample:
        return TokenExample(
            query=self._query[row],
            positives=self._texts["positives"][row],
            negatives=self._texts["negatives"][row],
            query_key=int(self._query_key[row]),
            positive_keys=self._keys["positive_keys"][row],
            negative_keys=self._keys["negative_keys"][row],
            label_key=None if self._label_null[row] else int(self._label[row]),
        )


class _Lists:
    """Rows of a list column as slices of its values."""

    def __init__(self, column: pa.ListArray) -> None:
        self._offsets = column.offsets.to_numpy()
        self._values = column.values.to_numpy(zero_copy_only=False)

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self._values[self._offsets[row] : self._offsets[row + 1]]
        return values


class _Nested:
    """Rows of a list-of-lists column as lists of slices."""

    def __init__(self, column: pa.ListArray) -> None:
        self._offsets = column.offsets.to_numpy()
        self._inner = _Lists(column.values)

    def __getitem__(self, row: int) -> list[npt.NDArray[Any]]:
        return [self._inner[place] for place in range(self._offsets[row], self._offsets[row + 1])]


def open_corpus(store: Store, parts: dict[str, list[str]]) -> dict[str, TokenDataset]:
    """Open every dataset of a corpus.

    Args:
        store: where the parts are.
        parts: dataset to the keys of its part artifacts, in order (figure ``parts`` of a corpus artifact).

    Raises:
        StoreError: a part is missing.
    """
    return {
        name: TokenDataset([_part(store, key).local() / TOKEN_FILE for key in keys]) for name, keys in parts.items()
    }


def _part(store: Store, key: str) -> Artifact:
    found = store.get(PART, key)
    if found is None:
        raise StoreError(f"Part {key} of the corpus is missing from {store.root}; run the job again to rebuild it.")
    return found
