"""Which elements of the members' differences from the base have the same sign: counted in one pass, then kept.

Inner products tell how long and how far apart differences are; signs tell how much of them methods that elect signs
(TIES and its kin) would keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from boom_ray.merging.geometry.statistics import find, load, save
from boom_ray.merging.job import MergeJob
from boom_ray.merging.tensors.vectors import Strip
from boom_ray.store import Artifact

I64 = npt.NDArray[np.int64]
KIND = "signs"


@dataclass(frozen=True)
class Signs:
    """Counts over the elements of some tensors; those of tensors are added up for a group of them.

    Attributes:
        same: (M, M) elements in which both differences have the same sign, neither of them zero.
        both: (M, M) elements in which both are not zero; on the diagonal, in which a member differs from the base.
        elected: sum of squares of the elected mean: every element takes the sign of the sum of all differences, and
            the mean of those that have it.
    """

    same: I64
    both: I64
    elected: float

    def __add__(self, other: Signs) -> Signs:
        return Signs(self.same + other.same, self.both + other.both, self.elected + other.elected)

    def agreement(self, left: int, right: int) -> float | None:
        """Share of same signs of two members among the elements that both changed; None when there are none."""
        both = int(self.both[left, right])
        return int(self.same[left, right]) / both if both else None

    @staticmethod
    def none(members: int) -> Signs:
        """Counts of no elements."""
        zero = np.zeros((members, members), dtype=np.int64)
        return Signs(zero, zero, 0.0)


def count_signs(strip: Strip) -> Signs:
    """Count one strip of differences from the base.

    Products of zeros and ones in float32 are exact: a strip has far fewer than 2^24 elements.
    """
    rows = strip.rows
    up, down = (rows > 0).float(), (rows < 0).float()
    changed = up + down
    same = up @ up.T + down @ down.T
    total = rows.sum(dim=0)
    votes = torch.where(total > 0, up, torch.where(total < 0, down, torch.zeros_like(up))).to(rows.dtype)
    mean = (rows * votes).sum(dim=0) / votes.sum(dim=0).clamp(min=1)
    elected = float(mean.to(torch.float64).square().sum())
    return Signs(_integers(same), _integers(changed @ changed.T), elected)


def _integers(counts: torch.Tensor) -> I64:
    numbers: I64 = counts.to(torch.int64).cpu().numpy()
    return numbers


def save_signs(job: MergeJob, signs: Mapping[str, Signs]) -> Artifact:
    """Keep the counts of every floating tensor, by key."""
    arrays = {
        key: {"same": one.same, "both": one.both, "elected": np.array([one.elected])} for key, one in signs.items()
    }
    return save(job, KIND, arrays)


def find_signs(job: MergeJob) -> dict[str, Signs]:
    """Key of every floating tensor to its counts; empty when they were never counted."""
    found = find(job, KIND)
    if found is None:
        return {}
    return {key: Signs(one["same"], one["both"], float(one["elected"][0])) for key, one in load(found).items()}
