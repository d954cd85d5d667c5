"""Rows of Arrow columns as numpy slices and Python numbers, without a copy of the column.

Columns are those of a record batch read from a file, so their offset is 0. Offsets and numbers are looked up through
memoryviews: their items are Python's numbers, in half the time of numpy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I32 = npt.NDArray[np.int32]


class Nulls:
    """Which rows of a column are null, by its bitmap."""

    def __init__(self, column: pa.Array) -> None:
        """View the bitmap, if the column has a null at all."""
        self._bits = memoryview(column.buffers()[0]).cast("B") if column.null_count else None

    def __getitem__(self, row: int) -> bool:
        return self._bits is not None and not self._bits[row >> 3] >> (row & 7) & 1


class Numbers:
    """Rows of a column of numbers, None where it is null."""

    def __init__(self, column: pa.Array) -> None:
        """View a column of integers or floats."""
        self._values = np.frombuffer(column.buffers()[1], dtype=column.type.to_pandas_dtype()).data
        self._nulls = Nulls(column)

    def __getitem__(self, row: int) -> Any:
        return None if self._nulls[row] else self._values[row]


class Lists:
    """Rows of a list column as slices of its values."""

    def __init__(self, column: pa.ListArray) -> None:
        """View a column of lists of numbers."""
        self._offsets = column.offsets.to_numpy().data
        self._values = column.values.to_numpy()
        self._nulls = Nulls(column)

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self._values[self._offsets[row] : self._offsets[row + 1]]
        return values

    def optional(self, row: int) -> npt.NDArray[Any] | None:
        """A row, None where the column is null."""
        return None if self._nulls[row] else self[row]

    def take(self, rows: Iterable[int]) -> list[npt.NDArray[Any]]:
        """Several rows, faster than one by one."""
        offsets, values = self._offsets, self._values
        return [values[offsets[row] : offsets[row + 1]] for row in rows]


class Texts:
    """Texts of one example, each a slice made when it is asked for."""

    __slots__ = ("_lists", "_places")

    def __init__(self, lists: Lists, places: range) -> None:
        """The rows ``places`` of a list column."""
        self._lists, self._places = lists, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> I32:
        return self._lists[self._places[number]]

    def __iter__(self) -> Iterator[I32]:
        return iter(self.take(range(len(self))))

    def take(self, numbers: Iterable[int]) -> list[I32]:
        """(t,) token ids of each of the texts ``numbers``, which count from 0."""
        return self._lists.take([self._places.start + number for number in numbers])


class Nested:
    """Rows of a list-of-lists column."""

    def __init__(self, column: pa.ListArray) -> None:
        """View a column of lists of token ids."""
        self._offsets = column.offsets.to_numpy().data
        self._inner = Lists(column.values)

    def __getitem__(self, row: int) -> Texts:
        return Texts(self._inner, range(self._offsets[row], self._offsets[row + 1]))
