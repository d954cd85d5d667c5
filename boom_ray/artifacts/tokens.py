"""Random access to a corpus of tokens: memory-mapped Arrow files read row by row without copies.

The files are those of the corpus stage (schema `TOKENS` of `boom_ray.corpus.schema`), rows sorted by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boom_ray.artifacts.columns import Lists, Nested, Numbers, Texts
from boom_ray.errors import StoreError
from boom_ray.hashing import U64
from boom_ray.store import Artifact, Store

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
TOKEN_FILE = "tokens.arrow"
EXAMPLE_FILE = "examples.parquet"  # the texts, row by row; schema `EXAMPLES` of `boom_ray.corpus.schema`
PART = "part"
ROLES = ("positive", "negative")


class TokenExample:
    """One example: views into the file, each made when it is asked for, so that what is not used costs nothing."""

    __slots__ = ("_block", "_row")

    def __init__(self, block: _Block, row: int) -> None:
        """Row ``row`` of a block."""
        self._block, self._row = block, row

    @property
    def query(self) -> I32:
        """(t,) token ids, prompt and special tokens included."""
        return self._block.query[self._row]

    @property
    def positives(self) -> Texts:
        """Token ids of each positive."""
        return self._block.positives[self._row]

    @property
    def negatives(self) -> Texts:
        """Token ids of each hard negative."""
        return self._block.negatives[self._row]

    @property
    def query_key(self) -> int:
        """Hash of the query's text."""
        return int(self._block.query_key[self._row])

    @property
    def positive_keys(self) -> U64:
        """(P,) hashes of the positives' texts."""
        return self._block.positive_keys[self._row]

    @property
    def negative_keys(self) -> U64:
        """(N,) hashes of the negatives' texts."""
        return self._block.negative_keys[self._row]

    @property
    def label_key(self) -> int | None:
        """Hash of the label, None without one."""
        found = self._block.label_key[self._row]
        return None if found is None else int(found)

    @property
    def score(self) -> float | None:
        """Graded similarity of query and positive in [0, 1], None if the pair has none."""
        found = self._block.score[self._row]
        return None if found is None else float(found)

    @property
    def positive_scores(self) -> F32 | None:
        """(P,) a teacher's scores of the positives on its own scale, None without a teacher."""
        return self._block.positive_scores.optional(self._row)

    @property
    def negative_scores(self) -> F32 | None:
        """(N,) a teacher's scores of the negatives on its own scale, None without a teacher."""
        return self._block.negative_scores.optional(self._row)


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
        return self.examples(np.array([row]))[0]

    def examples(self, rows: npt.NDArray[np.int64]) -> list[TokenExample]:
        """The examples of (B,) rows, in their order."""
        places = np.searchsorted(self._starts, rows, side="right") - 1
        inside = rows - self._starts[places]
        return [
            TokenExample(self._blocks[place], row) for place, row in zip(places.tolist(), inside.tolist(), strict=True)
        ]


class _Block:
    """Views of one record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.rows = batch.num_rows
        raw = np.frombuffer(batch.column("id").buffers()[1], dtype=">u8").reshape(-1, 2)
        self.ids = raw[: self.rows, 0].astype(np.uint64)
        self.query = Lists(batch.column("query"))
        self.positives, self.negatives = Nested(batch.column("positives")), Nested(batch.column("negatives"))
        self.positive_keys, self.negative_keys = (Lists(batch.column(f"{one}_keys")) for one in ROLES)
        self.positive_scores, self.negative_scores = (Lists(batch.column(f"{one}_scores")) for one in ROLES)
        self.query_key = Numbers(batch.column("query_key"))
        self.label_key, self.score = Numbers(batch.column("label_key")), Numbers(batch.column("score"))


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
