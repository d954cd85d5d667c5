"""The vectors of one tensor, however large it is: looked at strip by strip, by several threads, any number of times.

A strip is a range of elements of all vectors in the type of the arithmetic. Strips begin at multiples of a fixed
number of elements (or at rows), and what they give is put together in their order, so results depend neither on the
number of threads nor on how much is held in memory.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.tensors.gram import basis_gram, total
from boom_ray.merging.tensors.space import F64, Space

if TYPE_CHECKING:
    from boom_ray.merging.tensors.magnitudes import Histograms
    from boom_ray.merging.tensors.whole import WholeModel

STRIP = 1 << 17
"""Elements per strip; a megabyte of float64 per vector, small enough for the cache and large enough for Python."""
GPU_STRIP = 256 * STRIP
"""The same on a GPU, where every call costs as much as a million elements."""
T = TypeVar("T")
Span = tuple[int, int]


@dataclass(frozen=True)
class Strip:
    """Elements ``start`` to ``start + n`` of a tensor, flat; valid only inside the call that gets it.

    Attributes:
        start: index of the first element.
        rows: (M, n) vectors: whole weights, or differences from the base; float32 or float64; may be overwritten.
        base: (n,) the base's values when vectors are differences from it.
        importance: (M, n) Fisher information of the members' elements, for methods that need it.
    """

    start: int
    rows: torch.Tensor
    base: torch.Tensor | None = None
    importance: torch.Tensor | None = None


class Pool:
    """Threads that work on strips.

    Args:
        threads: how many; none means that the caller does the work. Each of them computes on one core: torch's own
            threads would wait for one another at every call, which takes forever when the machine has other work.
    """

    def __init__(self, threads: int = 0) -> None:
        """Start the threads."""
        self.threads = threads
        self._local = threading.local()
        self._executor = (
            ThreadPoolExecutor(threads, "merge", initializer=torch.set_num_threads, initargs=(1,)) if threads else None
        )

    def map(self, function: Callable[[Span], T], spans: Sequence[Span]) -> list[T]:
        """The function's results for all spans, in their order."""
        if self._executor is None:
            return [function(span) for span in spans]
        return list(self._executor.map(function, spans))

    def buffer(self, name: str, nbytes: int) -> torch.Tensor:
        """(nbytes,) uint8, the calling thread's own; its contents last until the thread asks for the same name."""
        held = getattr(self._local, name, None)
        if held is None or held.numel() < nbytes:
            held = torch.empty(nbytes, dtype=torch.uint8)
            setattr(self._local, name, held)
        return held[:nbytes]

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Vectors(ABC):
    """The M vectors of one tensor.

    Attributes:
        name: key of the tensor, ``module/name``.
        shape: its shape.
        labels: one per vector, the same wherever the member stands in the order; seeds of random masks.
        has_base: whether vectors are differences from the base.
        dtype: type of the arithmetic.
        notes: what the method wants to report about this tensor, e.g. its coefficients.
        whole_model: statistics of the whole model, see `whole`.
        products: see `activations`.
        strip: elements per strip.
        least_rows: fewest rows per strip of rows; a method whose work per strip is large asks for more.
    """

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        labels: Sequence[str],
        has_base: bool,
        dtype: torch.dtype,
        pool: Pool | None = None,
    ) -> None:
        """Nothing is read yet."""
        self.name, self.shape, self.labels = name, tuple(shape), tuple(labels)
        self.has_base, self.dtype = has_base, dtype
        self.notes: dict[str, Any] = {}
        self.pool = pool or Pool()
        self.whole_model: WholeModel | None = None
        self.products: F64 | None = None
        self.strip = STRIP
        self.least_rows = 1
        self._checked = False

    @property
    def members(self) -> int:
        """Number of vectors, M."""
        return len(self.labels)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Elements of one row: the last dimension of a matrix; a vector or a scalar is one row."""
        return max(1, self.shape[-1] if len(self.shape) > 1 else self.numel)

    def note(self, name: str, value: Any) -> None:
        """Keep a figure for the report."""
        self.notes[name] = value

    def know(self, space: Space | None = None, histograms: Histograms | None = None) -> None:
        """Take over what was computed before, so that no pass is made for it."""
        if space is not None:
            self.__dict__["space"] = space
        if histograms is not None:
            self.__dict__["histograms"] = histograms

    def found(self) -> dict[str, Any]:
        """What was computed or taken over: ``space`` and ``histograms``, if the method asked for them."""
        return {name: value for name, value in vars(self).items() if name in ("space", "histograms")}

    def map(self, function: Callable[[Strip], T], by_rows: bool = False, checked: bool = False) -> list[T]:
        """The function's results for all strips, in their order; none for a tensor without elements.

        Args:
            function: called from several threads.
            by_rows: strips hold whole rows.
            checked: the function itself looks for NaN and infinity.

        Raises:
            MergeError: a member holds NaN or infinity.
        """
        checked = checked or self._checked

        def work(span: Span) -> T:
            strip = self.load(span)
            if not checked:
                self._check(strip)
            return function(strip)

        result = self.pool.map(work, list(self.spans(by_rows)))
        self._checked = True
        return result

    def spans(self, by_rows: bool = False) -> Iterator[Span]:
        """Ranges of elements of the strips."""
        step = max(self.least_rows, self.strip // self.columns) * self.columns if by_rows else self.strip
        for start in range(0, self.numel, step):
            yield start, min(start + step, self.numel)

    @abstractmethod
    def load(self, span: Span) -> Strip:
        """A range of elements of all vectors."""

    @abstractmethod
    def blame(self, index: int) -> str:
        """How errors name a source: the base is -1, members count from 0."""

    @cached_property
    def space(self) -> Space:
        """Inner products of the vectors; known beforehand, or computed by a pass over them."""
        grams = self.map(self._gram, checked=True)
        if self.has_base:
            return Space.of_differences(total(grams, self.members + 1), whole=False)
        return Space.of_first(total(grams, self.members))

    @cached_property
    def histograms(self) -> Histograms:
        """How many elements of each vector have which magnitude; known beforehand, or computed by a pass."""
        from boom_ray.merging.tensors.magnitudes import histograms

        return histograms(self)

    @property
    def whole(self) -> WholeModel:
        """Statistics of the whole model, for methods that need them."""
        if self.whole_model is None:
            raise AssertionError(f"{self.name}: this method was to be given statistics of the whole model")
        return self.whole_model

    def activations(self) -> F64 | None:
        """(M, columns, columns) mean products of the inputs of this linear layer; None for other tensors."""
        return self.products

    def _gram(self, strip: Strip) -> F64:
        found = basis_gram(strip)
        if not np.isfinite(found).all():
            self._check(strip)
        return found

    def _check(self, strip: Strip) -> None:
        """NaN and infinity survive a sum, and a sum costs a tenth of looking at every element."""
        rows = strip.rows if strip.base is None else torch.cat([strip.base[None], strip.rows])
        if bool(torch.isfinite(rows.sum(dim=1)).all()) or bool(torch.isfinite(rows).all()):
            return
        bad = int(torch.nonzero(~torch.isfinite(rows).all(dim=1))[0])
        index = bad if strip.base is None else bad - 1
        raise diverged(self.name, self.blame(index))


def diverged(name: str, source: str) -> MergeError:
    """The error about a tensor of a member, or of the base, that holds NaN or infinity."""
    return MergeError(
        f"Tensor {name} of {source} holds NaN or infinity: that training diverged. Leave this member out or train it "
        f"again with a lower learning rate."
    )


class MemoryVectors(Vectors):
    """Vectors that are in memory already, on the CPU or a GPU.

    Args:
        name: key of the tensor.
        tensors: the members' values, all of one shape and device.
        base: the base's values, when vectors are differences from it.
        labels: see `Vectors`; by default the positions.
        dtype: type of the arithmetic; by default float64.
        pool: threads.
        importance: the members' Fisher information, for methods that need it.
    """

    def __init__(
        self,
        name: str,
        tensors: Sequence[torch.Tensor],
        base: torch.Tensor | None = None,
        labels: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float64,
        pool: Pool | None = None,
        importance: Sequence[torch.Tensor] = (),
    ) -> None:
        """Nothing is copied yet."""
        names = labels if labels is not None else [str(index) for index in range(len(tensors))]
        super().__init__(name, tensors[0].shape, names, base is not None, dtype, pool)
        self._flat = [tensor.reshape(-1) for tensor in tensors]
        self._base = None if base is None else base.reshape(-1)
        self._importance = [tensor.reshape(-1) for tensor in importance]
        if tensors[0].device.type != "cpu":
            self.strip = GPU_STRIP

    def load(self, span: Span) -> Strip:
        """Copies of the elements."""
        rows = self._cut(self._flat, span)
        importance = self._cut(self._importance, span) if self._importance else None
        if self._base is None:
            return Strip(span[0], rows, None, importance)
        base = self._base[span[0] : span[1]].to(self.dtype, copy=True)
        return Strip(span[0], rows.sub_(base), base, importance)

    def _cut(self, tensors: Sequence[torch.Tensor], span: Span) -> torch.Tensor:
        return torch.stack([tensor[span[0] : span[1]].to(self.dtype) for tensor in tensors])

    def blame(self, index: int) -> str:
        """The member's label."""
        return "the base" if index < 0 else self.labels[index]
