"""Pictures of comparisons between models as matplotlib figures; pure functions of data, without pyplot's global state.

Scores are drawn as they are (1 is perfect), differences and their intervals in points, hundredths of a score.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator

from boom_ray.evaluation.comparison import Comparison, TaskComparison
from boom_ray.evaluation.comparison_text import GROUP_NAMES
from boom_ray.flows.pictures.canvas import COLOURS, GAIN, LOSS, STYLES, canvas

EVEN = "#999999"
VERDICTS = {"better": GAIN, "worse": LOSS, "tie": EVEN}
DOT = 9.0
"""Pixels that a point takes in each direction."""
GAPS = (7.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0)
"""Pixels between a point and its name, nearest first."""
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
Points = Mapping[str, tuple[float, float]]
Pixels = npt.NDArray[np.float64]


def gain_bars(comparison: Comparison) -> Figure:
    """The second model's score less the first's, one bar per task, by group, with intervals over queries.

    The colour is the verdict; bars of tasks that could not be tested over queries are hatched.

    Args:
        comparison: see `boom_ray.evaluation.compare.compare`.
    """
    groups = {
        group: sorted((task for task in comparison.tasks if task.group == group), key=lambda task: -task.difference)
        for group in comparison.groups
    }
    figure, axes = canvas(9.0, 1.9 + 0.27 * (len(comparison.tasks) + len(groups)))
    ends = [100 * end for task in comparison.tasks for end in (task.interval or (task.difference,))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.13 * ((high - low) or 1.0)  # for the numbers
    axes.set_xlim(low - margin, high + margin)
    labels: list[str] = []
    for group, tasks in groups.items():
        _group_bars(axes, len(labels), tasks)
        mean = comparison.groups[group].mean_task.difference
        axes.text(
            1.01, len(labels) + (len(tasks) - 1) / 2, f"{GROUP_NAMES[group]}\nmean {100 * mean:+.2f}",
            transform=axes.get_yaxis_transform(), va="center",
        )  # fmt: skip
        labels += [*(task.task for task in tasks), ""]
    labels = labels[:-1]  # no gap below the last group
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    first, second = comparison.names
    figure.suptitle(textwrap.fill(f"{second} against {first}, per task", 80), fontsize="large")
    axes.set_xlabel("difference in the task's main score (points)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    _explain(figure, comparison)
    return figure


def _group_bars(axes: Axes, top: int, tasks: Sequence[TaskComparison]) -> None:
    """One group's bars from row ``top`` down, each with its interval and its number beyond both."""
    for place, task in enumerate(tasks, start=top):
        points, colour = 100 * task.difference, VERDICTS[task.verdict]
        fill, hatch = (colour, None) if task.tested else ("white", "////")
        axes.barh(place, points, height=0.7, facecolor=fill, edgecolor=colour, hatch=hatch)
        ends = [points]
        if task.interval is not None:
            ends += [100 * end for end in task.interval]
            axes.plot(ends[1:], [place, place], color="black", linewidth=1.0, marker="|", markersize=5)
        outwards = points >= 0
        axes.annotate(
            f"{points:+.2f}", (max(*ends, 0.0) if outwards else min(*ends, 0.0), place), (4 if outwards else -4, 0),
            textcoords="offset points", va="center", ha="left" if outwards else "right", fontsize=8,
        )  # fmt: skip


def _explain(figure: Figure, comparison: Comparison) -> None:
    """A legend below the axes with what occurs."""
    found = {task.verdict for task in comparison.tasks}
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=verdict) for verdict, colour in VERDICTS.items() if verdict in found
    ]
    if not all(task.tested for task in comparison.tasks):
        handles.append(Patch(facecolor="white", edgecolor=EVEN, hatch="////", label="not tested, by score alone"))
    if any(task.tested for task in comparison.tasks):
        label = f"{100 * comparison.level:g} % interval over queries"
        handles.append(Line2D([], [], color="black", linewidth=1.0, marker="|", markersize=5, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def radar(models: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean score of every model by task type, one polygon per model; bars where fewer than three types are there.

    The scale begins a little below the lowest score, or the models could not be told apart; the rings name it.

    Args:
        models: model to its means by task type; a type that a model lacks leaves a gap.
    """
    types = list(dict.fromkeys(name for means in models.values() for name in means))
    values = np.array([[means.get(name, np.nan) for name in types] for means in models.values()], dtype=np.float64)
    if len(types) < 3:
        return _type_bars(list(models), types, values.reshape(len(models), len(types)))
    figure = Figure(dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="polar")
    assert isinstance(axes, PolarAxes)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    angles = np.linspace(0, 2 * np.pi, len(types), endpoint=False)
    for index, (name, row) in enumerate(zip(models, values, strict=True)):
        axes.plot(
            [*angles, 2 * np.pi], [*row, row[0]], color=COLOURS[index % len(COLOURS)], label=name, linewidth=1.5,
            linestyle=STYLES[index // len(COLOURS) % len(STYLES)], marker="o", markersize=3,
        )  # fmt: skip
    low, high = _scale(values)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", labelsize=8, labelcolor="#555555")
    axes.set_xticks(angles, [""] * len(types))
    for name, angle in zip(types, angles, strict=True):
        right, up = math.sin(angle), math.cos(angle)
        axes.annotate(
            name, (angle, high), (9 * right, 9 * up), textcoords="offset points", va="center" if abs(up) < 0.9 else
            "bottom" if up > 0 else "top", ha="center" if abs(right) < 0.1 else "left" if right > 0 else "right",
        )  # fmt: skip
    axes.set_rlabel_position(math.degrees(angles[1] / 2))
    axes.grid(alpha=0.4)
    axes.set_title("Mean score by task type", pad=28)
    _lay_out(figure, axes)
    return figure


def _lay_out(figure: Figure, axes: PolarAxes) -> None:
    """A circle with room for names around it and a legend at its right: matplotlib's layouts are for rectangles."""
    circle, beside, above = 4.4, 1.9, 0.8  # inches; 24 letters beside it
    legend = figure.legend(loc="center right", frameon=False, fontsize=9)
    figure.draw_without_rendering()
    width = circle + 2 * beside + legend.get_window_extent().width / figure.dpi
    height = circle + 2 * above
    figure.set_size_inches(width, height)
    axes.set_position((beside / width, above / height - 0.02, circle / width, circle / height))


def _scale(values: np.ndarray) -> tuple[float, float]:
    """Ends of the radial scale: tenths around the scores."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return math.floor(10 * low - 0.5) / 10, math.ceil(10 * high + 1e-9) / 10


def _type_bars(names: Sequence[str], types: Sequence[str], values: np.ndarray) -> Figure:
    """Horizontal bars, a block per type and a bar per model."""
    figure, axes = canvas(8.0, 1.6 + 0.27 * len(types) * (len(names) + 1))
    places, labels = [], []
    for column, kind in enumerate(types):
        top = column * (len(names) + 1)
        for row, name in enumerate(names):
            places.append(top + row)
            labels.append(name)
            value = values[row, column]
            if np.isfinite(value):
                axes.barh(top + row, value, color=COLOURS[row % len(COLOURS)], height=0.7)
                axes.annotate(
                    f"{value:.4f}", (max(value, 0.0), top + row), (3, 0), textcoords="offset points", va="center",
                    fontsize=8,
                )  # fmt: skip
        axes.text(1.01, top + (len(names) - 1) / 2, kind, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(places, labels)
    axes.set_ylim(len(types) * (len(names) + 1) - 1.4, -0.6)
    axes.set(title="Mean score by task type", xlabel="mean of the tasks' main scores")
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    return figure


def pareto(points: Points) -> Figure:
    """Models in domain against out of domain, with the front: models that no other beats on both.

    Args:
        points: model to its mean scores (in domain, out of domain); 1 is perfect.
    """
    figure, axes = canvas(7.5, 5.5)
    axes.set(title="In domain against out of domain", xlabel="mean score in domain", ylabel="mean score out of domain")
    front_and_points(figure, axes, points, more_is_better=True)
    return figure


def cost_quality(points: Points, cost_label: str) -> Figure:
    """Models by cost and quality, with the front: models that no other beats at the same cost or less.

    The scale of costs is logarithmic where they differ by more than a factor of 20.

    Args:
        points: model to (cost, mean score); 1 is a perfect score.
        cost_label: what the cost is, with its unit.
    """
    figure, axes = canvas(7.5, 5.5)
    costs = [cost for cost, _ in points.values()]
    if costs and 0 < 20 * min(costs) < max(costs):
        axes.set_xscale("log")
    axes.set(title="Quality against cost", xlabel=cost_label, ylabel="mean score")
    front_and_points(figure, axes, points, more_is_better=False)
    return figure


def front(points: Points, more_is_better: bool = True) -> list[str]:
    """Names of the points that no other beats, from left to right.

    A point beats another that it is nowhere worse than and somewhere better. The second coordinate is always the
    better the larger it is, the first as ``more_is_better`` says.
    """
    sign = 1 if more_is_better else -1

    def beaten(x: float, y: float) -> bool:
        return any(sign * u >= sign * x and v >= y and (u, v) != (x, y) for u, v in points.values())

    return sorted((name for name, (x, y) in points.items() if not beaten(x, y)), key=lambda name: points[name])


def front_and_points(figure: Figure, axes: Axes, points: Points, more_is_better: bool) -> None:
    """Draw named points and the line through those that no other beats; the first coordinate may be a cost."""
    best = front(points, more_is_better)
    others = [name for name in points if name not in best]
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    for kind, names, colour in (("Pareto front", best, GAIN), ("beaten by another", others, EVEN)):
        if names:
            places = np.array([points[name] for name in names])
            axes.scatter(places[:, 0], places[:, 1], color=colour, s=36, zorder=3, label=kind)
    if not best:
        return
    axes.ticklabel_format(axis="both" if axes.get_xscale() == "linear" else "y", useOffset=False)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # as they are, without what the line would add
    line = staircase([points[name] for name in best], more_is_better, axes)
    axes.plot(*zip(*line, strict=True), color=GAIN, linewidth=1.2, zorder=2)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _name_points(figure, axes, points, best, line)


def staircase(best: Sequence[tuple[float, float]], more_is_better: bool, axes: Axes) -> list[tuple[float, float]]:
    """Corners of the border of what the front beats, from one edge of the axes to another.

    Between two models of the front it is at the worse of both values: no model is known to be there.

    Args:
        best: the front from left to right.
        more_is_better: whether large first coordinates are good.
        axes: with their final limits.
    """
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    if more_is_better:
        turns = [corner for (x, y), (_, below) in itertools.pairwise(best) for corner in ((x, y), (x, below))]
        return [(left, best[0][1]), *turns, best[-1], (best[-1][0], bottom)]
    turns = [corner for (x, y), (after, _) in itertools.pairwise(best) for corner in ((x, y), (after, y))]
    return [(best[0][0], bottom), *turns, best[-1], (right, best[-1][1])]


def _name_points(
    figure: Figure, axes: Axes, points: Points, bold: Sequence[str], line: Sequence[tuple[float, float]]
) -> None:
    """Write every name beside its point, off points, names and the front; a thin line leads to a distant one."""
    figure.draw_without_rendering()  # settles the layout, by which the places of names are chosen
    pixel, frame = 72 / figure.dpi, np.asarray(axes.get_window_extent().extents)
    centres = {name: np.asarray(axes.transData.transform(point)) for name, point in points.items()}
    taken = [_box(centre, (DOT, DOT)) for centre in centres.values()]
    for one, other in itertools.pairwise(axes.transData.transform(line)):
        taken.append(_box((one + other) / 2, np.abs(one - other) + 2))
    for name in sorted(points, key=lambda name: name not in bold):
        text = axes.annotate(
            name, points[name], (0, 0), textcoords="offset points", fontsize=8, ha="center", va="center",
            fontweight="bold" if name in bold else "normal",
        )  # fmt: skip
        text.set_in_layout(False)  # would move the axes under names that are placed already
        size = np.asarray(text.get_window_extent().size) + np.array([2.0, 0.0])
        offset = _free_place(centres[name], size, np.array(taken), frame)
        taken.append(_box(centres[name] + offset, size))
        text.set_position(tuple(offset * pixel))
        if (np.abs(offset) - size / 2).max() > 2 * DOT:
            edge = (offset - np.clip(offset, -size / 2, size / 2)) * pixel
            axes.annotate(
                "", points[name], (edge[0], edge[1]), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": EVEN, "shrinkA": 0, "shrinkB": 3},
            ).set_in_layout(False)  # fmt: skip


def _free_place(centre: Pixels, size: Pixels, taken: Pixels, frame: Pixels) -> Pixels:
    """Where the middle of a name goes, from its point: the nearest place that covers nothing, or else the least.

    Args:
        centre: the point, [2].
        size: width and height of the name, [2].
        taken: boxes to keep off, [n, 4].
        frame: box to stay in, [4].
    """
    offsets = np.array([np.multiply(side, gap + size / 2) for gap in GAPS for side in SIDES])
    options = np.array([_box(centre + offset, size) for offset in offsets])
    outside = size.prod() - _shared(options, frame[None])[:, 0]
    covered = outside + _shared(options, taken).sum(axis=1)
    return np.asarray(offsets[np.argmin(covered.round(3))])  # the first of equals


def _box(centre: Pixels, size: Pixels | tuple[float, float]) -> Pixels:
    """Left, bottom, right and top: [4]."""
    half = np.asarray(size) / 2
    return np.concatenate([centre - half, centre + half])


def _shared(boxes: Pixels, others: Pixels) -> Pixels:
    """Area that each of n boxes [n, 4] shares with each of k others [k, 4]: [n, k]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=-1))
