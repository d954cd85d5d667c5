"""A bag under a schedule: which examples of which dataset make up every step.

Every step is the same on all workers, who take slices of it by rank. It is one dataset, or under example-level mixing
one part after the other, each of one dataset. The plan is a few flat arrays, so step s is read without the steps before
it, also from a memory-mapped file.
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
    """One global step, or a part of a mixed one.

    Attributes:
        dataset: name of its one dataset.
        epoch: number of the pass over the dataset's examples in the bag, from 0.
        rows: (B,) rows of the dataset, in order.
    """

    dataset: str
    epoch: int
    rows: I64


@dataclass(frozen=True)
class Stage:
    """Consecutive steps that are a training run of their own as far as the learning rate goes.

    Attributes:
        name: for people.
        steps: how many.
        learning_rate: peak; None: that of the training configuration.
    """

    name: str
    steps: int
    learning_rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """All S steps of a member, of N parts together; without ``starts`` every step is one part.

    Attributes:
        datasets: names, indexed by ``dataset``.
        dataset: (N,) index of each part's dataset.
        epoch: (N,) number of each part's pass, see `Step`.
        offsets: (N+1,) where each part's rows begin in ``rows``.
        rows: (sum of batch sizes,) rows of the part's dataset.
        starts: (S+1,) where each step's parts begin; None: S = N.
        stages: what the steps are divided into, in order; empty: one stage with the configured learning rate.
    """

    datasets: tuple[str, ...]
    dataset: I32
    epoch: I32
    offsets: I64
    rows: I64
    starts: I64 | None = None
    stages: tuple[Stage, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset) if self.starts is None else len(self.starts) - 1

    def parts(self, index: int) -> tuple[Step, ...]:
        """The parts of step ``index``, each of another dataset; constant time."""
        if self.starts is None:
            return (self._part(index),)
        return tuple(self._part(number) for number in range(int(self.starts[index]), int(self.starts[index + 1])))

    def step(self, index: int) -> Step:
        """Step ``index`` of a plan whose steps are one dataset each; constant time.

        Raises:
            ValueError: the step is of several datasets.
        """
        (only,) = self.parts(index)
        return only

    def _part(self, number: int) -> Step:
        start, stop = self.offsets[number], self.offsets[number + 1]
        name = self.datasets[int(self.dataset[number])]
        return Step(name, int(self.epoch[number]), np.asarray(self.rows[start:stop]))

    def arrays(self) -> dict[str, I32 | I64]:
        """Name to array, those that there are, always in the same order."""
        found = {name: getattr(self, name) for name in _ARRAYS}
        return {name: array for name, array in found.items() if array is not None}

    def save(self, folder: Path) -> None:
        """Write the arrays as ``plan-*.npy``; names of datasets and stages are kept elsewhere."""
        for name, array in self.arrays().items():
            np.save(folder / f"plan-{name}.npy", array, allow_pickle=False)

    @staticmethod
    def load(folder: Path, datasets: tuple[str, ...], stages: tuple[Stage, ...] = ()) -> Plan:
        """Memory-map a saved plan."""
        files = {name: folder / f"plan-{name}.npy" for name in _ARRAYS}
        there = {name: file for name, file in files.items() if name != "starts" or file.exists()}
        arrays = {name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in there.items()}
        return Plan(datasets, **arrays, stages=stages)


_ARRAYS = ("dataset", "epoch", "offsets", "rows", "starts")


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
    stages = tuple(Stage(**stage) for stage in bag.figures.get("stages", ()))
    return Plan.load(bag.local(), tuple(bag.figures["datasets"]), stages)
