"""A bag under a schedule: which examples of which dataset make up every step.

Every step is one dataset on all workers; workers take slices of it by rank. The plan is three flat arrays, so step s is
read without the steps before it, also from a memory-mapped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from boom_ray.errors import StoreError
from boom_ray.store import Store

BAG = "bag"
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One global step.

    Attributes:
        dataset: name of the one dataset of the step.
        epoch: number of the pass over the bag, from 0.
        rows: (B,) rows of the dataset, in order.
    """

    dataset: str
    epoch: int
    rows: I64


@dataclass(frozen=True)
class Plan:
    """All steps of a member.

    Attributes:
        datasets: names, indexed by ``dataset``.
        dataset: (S,) index of each step's dataset.
        epoch: (S,) number of each step's pass.
        offsets: (S+1,) where each step's rows begin in ``rows``.
        rows: (sum of batch sizes,) rows of the step's dataset.
    """

    datasets: tuple[str, ...]
    dataset: I32
    epoch: I32
    offsets: I64
    rows: I64

    def __len__(self) -> int:
        return len(self.dataset)

    def step(self, index: int) -> Step:
        """Step ``index``; constant time."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        name = self.datasets[int(self.dataset[index])]
        return Step(name, int(self.epoch[index]), np.asarray(self.rows[start:stop]))

    def save(self, folder: Path) -> None:
        """Write the four arrays as ``plan-*.npy``."""
        for name in _ARRAYS:
            np.save(folder / f"plan-{name}.npy", getattr(self, name), allow_pickle=False)

    @staticmethod
    def load(folder: Path, datasets: tuple[str, ...]) -> Plan:
        """Memory-map a saved plan."""
        arrays = {name: np.load(folder / f"plan-{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        return Plan(datasets, **arrays)


_ARRAYS = ("dataset", "epoch", "offsets", "rows")


def share(count: int, rank: int, workers: int) -> slice:
    """The contiguous part of a step's ``count`` rows that one worker takes; the shares of all ranks are the step."""
    return slice(rank * count // workers, (rank + 1) * count // workers)


def open_plan(store: Store, key: str) -> Plan:
    """The plan of a stored bag, memory-mapped.

    Raises:
        StoreError: there is no such bag.
    """
    bag = store.get(BAG, key)
    if bag is None:
        raise StoreError(f"Bag {key} is missing from {store.root}; run the job again to draw it again.")
    return Plan.load(bag.local(), tuple(bag.figures["datasets"]))
