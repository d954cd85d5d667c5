"""The mean of a run's last weights, ``average_last``: which updates it takes, and its sum in float64."""

from __future__ import annotations

import math

import torch

from boom_ray.config import AverageLastConfig


def snapshot_updates(total: int, config: AverageLastConfig | None) -> tuple[int, ...]:
    """After which updates the weights enter the mean.

    The last ceil(share·total) updates are cut into as many equal parts as there are snapshots, and each part's end is
    one; a snapshot falls on the update before an end that lies between two. With fewer updates than snapshots all of
    them are taken.

    Args:
        total: updates of the run.
        config: None for no mean.

    Returns:
        numbers of finished updates, ascending, the last one ``total``; empty without a mean.

    Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018, arXiv
    1803.05407; over the last checkpoints of one run also Vaswani et al. 2017, arXiv 1706.03762, section 6.1.
    """
    if config is None:
        return ()
    window = math.ceil(config.share * total)
    count = min(config.snapshots, window)
    return tuple(total - window + part * window // count for part in range(1, count + 1))


def put(total: torch.Tensor, values: torch.Tensor, is_first: bool) -> None:
    """Begin a sum with values, or add them; sums in float64 of float32 need no copy in that type."""
    if is_first:
        total.copy_(values)
    else:
        total.add_(values)


def mean(total: torch.Tensor, count: int) -> torch.Tensor:
    """A sum of ``count`` tensors as their mean in float32 on the CPU, a copy; it is rounded once."""
    return (total if count == 1 else total / count).to("cpu", torch.float32, copy=True)
