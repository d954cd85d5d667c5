"""Pictures of a study as matplotlib figures: what each arm gains, where, at what cost, and which datasets go together.

Scores and differences are points of 100, as in the study's report. The untrained base model is in none of them: it
would be so far from the arms that they could not be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from boom_ray.evaluation.comparison_text import GROUP_NAMES
from boom_ray.evaluation.scores import GROUPS, Group
from boom_ray.flows.pictures.canvas import GAIN, LOSS, canvas
from boom_ray.flows.pictures.comparison import EVEN, front_and_points
from boom_ray.studies.estimates import LEVEL, Estimate, difference_of, level_of, tasks_where
from boom_ray.studies.results import StudyResult
from boom_ray.studies.tables import mean_cost
from boom_ray.studies.verdict_text import interval_text, signed

SIGNED = LinearSegmentedColormap.from_list("boom_signed", [LOSS, "#FFFFFF", GAIN])
"""Colours of differences: what is better and what is worse look as everywhere else."""
NUMBERS = 600
"""Most cells of a heat map that have their number written in them."""
Matrix = npt.NDArray[np.float64]


def study_figures(study: StudyResult) -> dict[str, Figure]:
    """All pictures that apply, by file name.

    ``differences.png`` and ``tasks.png`` where an arm can be compared with the baseline, ``domains.png`` where there
    are tasks in and out of domain, ``cost_GROUP.png`` per group of tasks. An arm that was never made, or that lacks a
    task, is left out of those that it has no place in.

    Args:
        study: what was measured.
    """
    figures: dict[str, Figure] = {}
    groups = [group for group in GROUPS if tasks_where(study, group)]
    if _differences(study, list(study.tasks)):
        figures["differences.png"] = difference_intervals(study)
        figures["tasks.png"] = task_differences(study)
    if len(groups) > 1:
        figures["domains.png"] = domains(study)
    return figures | {f"cost_{group}.png": cost_and_quality(study, group) for group in groups}


def difference_intervals(study: StudyResult) -> Figure:
    """Every arm less the baseline with its interval over seeds, in and out of domain side by side.

    Small dots below a mean are single seeds.

    Args:
        study: one arm or more can be compared with the baseline.
    """
    groups = [group for group in GROUPS if tasks_where(study, group)]
    found = {group: _differences(study, tasks_where(study, group)) for group in groups}
    arms = [arm for arm in study.arms if any(arm in own for own in found.values())]
    figure, first = canvas(4.2 + 3.2 * len(groups), 1.7 + 0.36 * len(arms))
    first.remove()
    every = figure.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
    for axes, group in zip(every, groups, strict=True):
        _intervals(axes, [found[group].get(arm) for arm in arms])
        axes.set(title=GROUP_NAMES[group].capitalize(), xlabel="difference (points of 100)")
    every[0].set_yticks(range(len(arms)), arms)
    every[0].set_ylim(len(arms) - 0.4, -0.6)
    figure.suptitle(f"Against {study.baseline}, paired by seed, with {100 * LEVEL:g} % intervals over seeds")
    return figure


def _intervals(axes: Axes, found: Sequence[Estimate | None]) -> None:
    """A row per arm from 0 down: mean, interval, single seeds, and the numbers at the right."""
    axes.axvline(0, color="black", linewidth=0.8)
    for row, one in enumerate(found):
        if one is None:
            continue
        seeds = [100 * value for value in one.by_seed.values()]
        colour = _colour(one)
        axes.scatter(seeds, [row + 0.22] * len(seeds), color=EVEN, s=9, zorder=2)  # else the mean would cover them
        if one.interval is not None:
            axes.plot([100 * end for end in one.interval], [row, row], color=colour, marker="|", linewidth=1.4)
        axes.scatter([100 * one.mean], [row], color=colour, s=40, zorder=3)
        text = signed(one.mean) + (f"\n{interval_text(one.interval)}" if one.interval else "")
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _colour(one: Estimate) -> str:
    """By the side of zero that the interval is on."""
    if one.interval is None or one.interval[0] <= 0 <= one.interval[1]:
        return EVEN
    return GAIN if one.mean > 0 else LOSS


def domains(study: StudyResult) -> Figure:
    """Arms in domain against out of domain, with the front; bars are standard deviations over seeds.

    Args:
        study: with tasks of both groups.
    """
    inside, outside = (_levels(study, group) for group in GROUPS)
    found = {arm: (inside[arm], outside[arm]) for arm in inside if arm in outside}
    figure, axes = canvas(7.5, 5.5)
    axes.set_title("In domain against out of domain, ± one standard deviation over seeds", fontsize="medium")
    axes.set(xlabel="mean score in domain (points of 100)", ylabel="mean score out of domain (points of 100)")
    for x, y in found.values():
        _spread(axes, 100 * x.mean, y, x)
    points = {arm: (100 * x.mean, 100 * y.mean) for arm, (x, y) in found.items()}
    front_and_points(figure, axes, points, more_is_better=True)
    return figure


def cost_and_quality(study: StudyResult, group: Group) -> Figure:
    """Arms by what they cost and how good they are, with the front; bars are standard deviations over seeds.

    Args:
        study: what was measured.
        group: of the tasks that quality is the mean over.
    """
    figure, axes = canvas(7.5, 5.5)
    title = f"Quality {GROUP_NAMES[group]} against cost, ± one standard deviation over seeds"
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="training (full runs)", ylabel=f"mean score {GROUP_NAMES[group]} (points of 100)")
    points = {}
    for arm, level in _levels(study, group).items():
        cost = mean_cost(study, arm)
        if cost is not None:
            points[arm] = (cost.runs, 100 * level.mean)
            _spread(axes, cost.runs, level)
    front_and_points(figure, axes, points, more_is_better=False)
    return figure


def _spread(axes: Axes, x: float, y: Estimate, across: Estimate | None = None) -> None:
    """Bars of one standard deviation to each side, under the points, where there are several seeds."""
    if y.std is not None:
        beside = 100 * across.std if across is not None and across.std is not None else None
        axes.errorbar(x, 100 * y.mean, 100 * y.std, beside, color=EVEN, alpha=0.6, fmt="none", zorder=1)


def task_differences(study: StudyResult) -> Figure:
    """Heat map of every arm (row) less the baseline on every task (column); a line parts the groups.

    Args:
        study: one arm or more can be compared with the baseline.
    """
    arms = list(_differences(study, list(study.tasks)))
    groups = {group: tasks_where(study, group) for group in GROUPS if tasks_where(study, group)}
    tasks = [task for own in groups.values() for task in own]
    single = [[difference_of(study, arm, study.baseline, [task]) for task in tasks] for arm in arms]
    values = np.array([[np.nan if one is None else 100 * one.mean for one in row] for row in single])
    figure, axes = canvas(3.4 + 0.62 * len(tasks), 2.6 + 0.36 * len(arms))
    _heat(figure, axes, values, "difference (points of 100)")
    axes.set_xticks(range(len(tasks)), tasks, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(arms)), arms)
    ends = np.cumsum([len(own) for own in groups.values()])
    for end in ends[:-1]:
        axes.axvline(end - 0.5, color="black", linewidth=1.2)
    for end, (group, own) in zip(ends, groups.items(), strict=True):
        place = (end - 0.5 - len(own) / 2, 1.01)
        axes.text(*place, GROUP_NAMES[group], transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    figure.suptitle(f"Against {study.baseline}, per task, mean over seeds")
    return figure


def synergy_matrix(
    names: Sequence[str],
    matrix: npt.ArrayLike,
    order: Sequence[int] | None = None,
    label: str = "synergy (share of loss)",
) -> Figure:
    """Heat map of how much datasets help each other: positive where joint training is better than separate.

    Args:
        names: the datasets.
        matrix: [datasets, datasets]; NaN where nothing was measured, as on the diagonal.
        order: places of the datasets from top to bottom, e.g. of a dendrogram's leaves; None: as they are.
        label: what the numbers are, with their unit.
    """
    places = list(range(len(names)) if order is None else order)
    values = np.asarray(matrix, dtype=np.float64).reshape(len(names), len(names))[np.ix_(places, places)]
    side = 2.6 + 0.62 * len(places)
    figure, axes = canvas(side + 1.1, side)
    _heat(figure, axes, values, label, digits=3)
    shown = [names[place] for place in places]
    axes.set_xticks(range(len(shown)), shown, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), shown)
    axes.set_title("Which datasets help each other (blue) or get in each other's way (orange)", fontsize="medium")
    return figure


def dendrogram(linkage: npt.ArrayLike, names: Sequence[str], count: int | None = None) -> Figure:
    """The tree of a hierarchical clustering.

    Args:
        linkage: [datasets - 1, 4] as of `scipy.cluster.hierarchy.linkage`.
        names: the datasets, by number; two or more.
        count: of clusters, where a dashed line cuts the tree; None: no line.
    """
    merges = np.asarray(linkage, dtype=np.float64)
    # no_plot: scipy would draw by pyplot's global state
    tree = hierarchy.dendrogram(merges, labels=list(names), no_plot=True, color_threshold=0)
    figure, axes = canvas(7.5, 1.6 + 0.36 * len(names))
    for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True):
        axes.plot(heights, (np.array(places) - 5) / 10, color=GAIN, linewidth=1.4)  # leaves are at 5, 15, 25…
    if count is not None and 1 < count < len(names):
        cut = (merges[-count, 2] + merges[1 - count, 2]) / 2
        axes.axvline(cut, color=LOSS, linestyle="--", linewidth=1.2, label=f"{count} clusters")
        axes.legend(frameon=False, loc="lower right")
    axes.set_yticks(range(len(names)), tree["ivl"])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="Datasets that help each other", xlabel="distance at which they are joined")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _heat(figure: Figure, axes: Axes, values: Matrix, label: str, digits: int = 2) -> None:
    """Cells coloured around zero and, if they are not too many, their numbers; unknown ones are grey."""
    known = np.abs(values[np.isfinite(values)])
    reach = float(known.max()) if known.size and known.max() > 0 else 1.0
    axes.set_facecolor("#EEEEEE")
    image = axes.imshow(values, vmin=-reach, vmax=reach, cmap=SIGNED, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and values.size <= NUMBERS:
            text, colour = f"{value:+.{digits}f}", "white" if value > 0.7 * reach else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=label, fraction=0.04)


def _differences(study: StudyResult, tasks: Sequence[str]) -> dict[str, Estimate]:
    """The arms less the baseline on those of the tasks that they share with it; without arms that share none."""
    found = {arm: difference_of(study, arm, study.baseline, tasks) for arm in study.arms if arm != study.baseline}
    return {arm: one for arm, one in found.items() if one is not None}


def _levels(study: StudyResult, group: Group) -> dict[str, Estimate]:
    """Mean scores of the arms that have all tasks of the group."""
    tasks = tasks_where(study, group)
    found = {arm: level_of(study, arm, tasks) for arm in study.arms}
    return {arm: one for arm, one in found.items() if one is not None}
