"""Pictures of a run as matplotlib figures; pure functions of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boom_ray.flows.pictures.canvas import COLOURS, GAIN, LOSS, STYLES, canvas


def loss_curves(curves: Mapping[str, Sequence[tuple[int, float]]], window: int | None = None) -> Figure:
    """Training loss of every member over its steps.

    Args:
        curves: member to its (step, loss) points.
        window: points of the running mean drawn over the faint raw curve; by default a fortieth of the longest curve.
    """
    figure, axes = canvas(8.0, 4.5)
    longest = max((len(points) for points in curves.values()), default=0)
    width = window or max(1, longest // 40)
    for index, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        steps, losses = np.array(sorted(points), dtype=np.float64).T
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        if width > 1:
            axes.plot(steps, losses, color=colour, alpha=0.18, linewidth=0.8)
        marker = "o" if len(points) == 1 else None
        axes.plot(steps, running_mean(losses, width), color=colour, linestyle=style, marker=marker, label=name)
    over = f" (mean of {width} points, raw values faint)" if width > 1 else ""
    axes.set(title=f"Training loss of the members{over}", xlabel="step", ylabel="InfoNCE loss (nats)")
    axes.grid(alpha=0.3)
    if axes.lines:
        outside = len(curves) > 10
        axes.legend(frameon=False, **({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if outside else {}))
    return figure


def running_mean(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Mean of each value and up to ``width - 1`` before it; same length, [n] float64."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def task_gains(rows: Sequence[tuple[str, str, float]], baseline: str = "baseline") -> Figure:
    """Score of the merged model less that of the baseline, one bar per task, by group.

    Args:
        rows: (task, group, gain in score points of the task's own main score).
        baseline: what it is compared with, for the title.
    """
    groups = list(dict.fromkeys(group for _, group, _ in rows))
    ordered = [[row for row in sorted(rows, key=lambda row: -row[2]) if row[1] == group] for group in groups]
    figure, axes = canvas(8.0, 1.4 + 0.32 * (len(rows) + len(groups)))
    labels: list[str] = []
    for group, members in zip(groups, ordered, strict=True):
        gains = [gain for _, _, gain in members]
        _bars(axes, len(labels), group, gains)
        labels += [*(task for task, _, _ in members), ""]
    labels = labels[:-1]  # no gap below the last group
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    widest = max((abs(gain) for _, _, gain in rows), default=0.0) or 0.01
    axes.set_xlim(-1.35 * widest, 1.35 * widest)
    axes.set(title=f"Merged model against {baseline}, per task", xlabel="gain in the task's main score (0 to 1)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return figure


def _bars(axes: Axes, top: int, group: str, gains: Sequence[float]) -> None:
    """One group's bars from row ``top`` down, each with its number, and the group's mean at the right."""
    places = np.arange(top, top + len(gains))
    axes.barh(places, gains, color=[GAIN if gain >= 0 else LOSS for gain in gains], height=0.7)
    for place, gain in zip(places, gains, strict=True):
        side = 3 if gain >= 0 else -3
        axes.annotate(
            f"{gain:+.4f}", (gain, place), (side, 0), textcoords="offset points", va="center", fontsize=8,
            ha="left" if gain >= 0 else "right",
        )  # fmt: skip
    axes.text(
        1.01, places.mean(), f"{group}\nmean {np.mean(gains):+.4f}", transform=axes.get_yaxis_transform(), va="center"
    )


def bag_overlap(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> Figure:
    """Heat map of how much of each bag (row) lies in each other (column).

    Args:
        names: the bags.
        matrix: [bags, bags] shares from 0 to 1.
    """
    shares = np.asarray(matrix, dtype=np.float64).reshape(len(names), len(names))
    side = 2.4 + 0.62 * len(names)
    figure, axes = canvas(side + 0.9, side)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (row, column), share in np.ndenumerate(shares):
        colour = "black" if share > 0.55 else "white"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set(title="Overlap of bags (%)", xlabel="… that is also in this bag", ylabel="share of this bag …")
    figure.colorbar(image, ax=axes, label="share of examples", fraction=0.046)
    return figure
