"""Pictures of scores over merge weights as matplotlib figures: on a line, in a triangle, or on parallel axes.

Weights of two members are a number, of three a place in a triangle (each corner is one member alone, each side leaves
one out), of more a line across one axis per member. Colours of scores are those of cividis, which stay in order with
any kind of colour vision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from boom_ray.flows.pictures.canvas import COLOURS, canvas
from boom_ray.flows.pictures.comparison import EVEN

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NEUTRAL = "#555555"
HIGHLIGHT = "#E69F00"
CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
"""Places of the three members alone: above, left and right; [3, 2]."""


@dataclass(frozen=True)
class WeightedTrials:
    """Finished trials with as many members each.

    Attributes:
        members: their names by position; [M].
        weights: [trials, M], each row sums to 1.
        scores: [trials], higher is better.
        methods: merge method of each trial.
        numbers: of the trials.
        label: what the scores are, for axes.
        part: which part of the model the weights are of; empty: all of it.
        alone: nothing but method and weights differs between the trials, so that a method's scores are a curve.
    """

    members: Sequence[str]
    weights: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    methods: Sequence[str]
    numbers: Sequence[int]
    label: str
    part: str = ""
    alone: bool = False

    @property
    def best(self) -> int:
        """Row of the highest score, the first of equals."""
        return int(np.argmax(self.scores))

    @property
    def best_words(self) -> str:
        """Number and score of that trial."""
        return f"best: trial {self.numbers[self.best]} ({self.scores[self.best]:.4f})"

    @property
    def by_method(self) -> Mapping[str, npt.NDArray[np.intp]]:
        """Rows of each method, in order of its first trial."""
        names = np.array(self.methods)
        return {name: np.flatnonzero(names == name) for name in dict.fromkeys(self.methods)}


def score_over_weights(trials: WeightedTrials) -> Figure:
    """The picture for the number of members, which must be two or more."""
    draw = {2: score_over_weight, 3: score_in_triangle}.get(len(trials.members), score_on_axes)
    return draw(trials)


def score_over_weight(trials: WeightedTrials) -> Figure:
    """Score of two members over the weight of the first, by method."""
    figure, axes = canvas(8.0, 5.0)
    weights = trials.weights[:, 0]
    axes.axvline(0.5, color=NEUTRAL, linewidth=1.0, linestyle=":", label="equal weights")
    for place, (method, rows) in enumerate(trials.by_method.items()):
        colour, marker = COLOURS[place % len(COLOURS)], _marker(place)
        axes.scatter(weights[rows], trials.scores[rows], color=colour, marker=marker, s=28, label=method, zorder=3)
        if trials.alone:
            order = rows[np.argsort(weights[rows], kind="stable")]
            axes.plot(weights[order], trials.scores[order], color=colour, linewidth=1.0, alpha=0.5)
    star(axes, (weights[trials.best], trials.scores[trials.best]), trials.best_words)
    axes.set(xlim=(-0.03, 1.03), xlabel=f"weight of {trials.members[0]}; the rest is {trials.members[1]}'s")
    axes.set(ylabel=trials.label, title=_title(trials, "two members"))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    cut_off(axes, weights, trials.scores, shown_from(trials.scores))
    _legend(figure)
    return figure


def score_in_triangle(trials: WeightedTrials) -> Figure:
    """Score of three members by colour, at the place of their weights in a triangle."""
    figure, axes = canvas(8.0, 6.8)
    _triangle(axes, trials.members)
    norm, extend = _scale(trials.scores)
    places = trials.weights @ CORNERS
    several = len(trials.by_method) > 1
    for place, (method, found) in enumerate(trials.by_method.items()):
        rows = found[np.argsort(trials.scores[found], kind="stable")]  # the better above the worse
        dots = axes.scatter(
            places[rows, 0], places[rows, 1], c=trials.scores[rows], cmap="cividis", norm=norm, s=46,
            marker=_marker(place), edgecolor="white", linewidth=0.4, zorder=3,
        )  # fmt: skip
        if several:
            axes.scatter([], [], color=NEUTRAL, marker=_marker(place), s=46, label=method)
    star(axes, places[trials.best], trials.best_words)
    figure.colorbar(dots, ax=axes, label=trials.label, fraction=0.04, extend=extend)
    axes.set_title(_title(trials, "three members"), pad=26)
    _legend(figure)
    return figure


def score_on_axes(trials: WeightedTrials) -> Figure:
    """Score of four members or more by the colour of a line across their weights, best lines above."""
    count = len(trials.members)
    figure, axes = canvas(max(8.0, 3.0 + 0.8 * count), 5.0)
    norm, extend = _scale(trials.scores)
    order = np.argsort(trials.scores, kind="stable")
    lines = [np.column_stack([np.arange(count), trials.weights[row]]) for row in order]
    drawn = LineCollection(lines, cmap="cividis", norm=norm, linewidths=1.2, alpha=0.8)
    drawn.set_array(trials.scores[order])
    axes.add_collection(drawn)
    axes.axhline(1 / count, color=NEUTRAL, linewidth=1.0, linestyle=":", label="equal weights")
    axes.plot(
        range(count), trials.weights[trials.best], color="black", linewidth=2.4, marker="*", markersize=12,
        markerfacecolor=HIGHLIGHT, label=trials.best_words,
    )  # fmt: skip
    axes.set_xticks(range(count), trials.members, rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlim=(-0.2, count - 0.8), ylim=(-0.02, 1.05 * trials.weights.max()))
    axes.set(ylabel="weight of the member", title=_title(trials, f"{count} members"))
    axes.grid(axis="x", alpha=0.6)
    figure.colorbar(drawn, ax=axes, label=trials.label, fraction=0.04, extend=extend)
    _legend(figure)
    return figure


def _triangle(axes: Axes, members: Sequence[str]) -> None:
    """The sides, a grid of quarters with each member's weight along a side, and the names at the corners."""
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.plot(*CORNERS[[0, 1, 2, 0]].T, color="black", linewidth=1.0)
    for member, name in enumerate(members):
        after, before = CORNERS[(member + 1) % 3], CORNERS[(member + 2) % 3]
        for weight in (0.25, 0.5, 0.75):
            ends = np.array([weight * CORNERS[member] + (1 - weight) * other for other in (after, before)])
            axes.plot(*ends.T, color=EVEN, linewidth=0.6, alpha=0.6)
            outwards = 11 * (after - before + CORNERS[member] - before) / np.sqrt(3)
            axes.annotate(
                f"{weight:g}", ends[0], outwards, textcoords="offset points", ha="center", va="center", fontsize=8,
                color=NEUTRAL,
            )  # fmt: skip
        axes.annotate(
            name, CORNERS[member], (0, 8 if member == 0 else -8), textcoords="offset points", ha="center",
            va="bottom" if member == 0 else "top",
        )  # fmt: skip


def star(axes: Axes, place: Sequence[float] | npt.NDArray[np.float64], words: str) -> None:
    """Mark the trial to look at, with words for the legend."""
    axes.scatter(
        place[0], place[1], marker="*", s=230, facecolor=HIGHLIGHT, edgecolor="black", linewidth=0.8, zorder=5,
        label=words,
    )  # fmt: skip


def shown_from(scores: npt.ArrayLike) -> float:
    """The lowest score that a picture shows in full, or one merge that collapsed would make all others look alike.

    Scores are cut off that lie below the first quartile by more than 1.5 times what the best lies above it.

    Args:
        scores: [n], n > 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    quarter, high = float(np.quantile(values, 0.25)), float(values.max())
    return float(values[values >= quarter - 1.5 * (high - quarter)].min() if high > quarter else values.min())


def cut_off(axes: Axes, places: npt.ArrayLike, scores: npt.ArrayLike, low: float) -> None:
    """End the scale of scores below ``low``, with an arrow at the edge for every score that is lower.

    Args:
        axes: with everything else in them.
        places: first coordinates, [n].
        scores: [n].
        low: see `shown_from`; lines across the picture may be lower.
    """
    across, values = np.asarray(places, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    lower = values < low
    if lower.any():
        high = axes.get_ylim()[1]
        bottom = low - 0.08 * ((high - low) or 1.0)
        axes.set_ylim(bottom, high)
        edge = np.full(lower.sum(), bottom)
        kind = f"lower, not shown ({lower.sum()})"
        axes.scatter(across[lower], edge, marker="v", color="black", s=40, label=kind, zorder=4, clip_on=False)


def _scale(scores: npt.NDArray[np.float64]) -> tuple[Normalize, str]:
    """Colours from the lowest score that is shown in full to the highest; lower ones share the lowest colour."""
    low = shown_from(scores)
    return Normalize(low, float(scores.max())), "min" if low > scores.min() else "neither"


def _marker(place: int) -> str:
    """With the colour of the same place no two of the first 49 methods look alike."""
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def _title(trials: WeightedTrials, members: str) -> str:
    part = f", part {trials.part}" if trials.part else ""
    return f"Score over the weights of {members}{part}"


def _legend(figure: Figure) -> None:
    """All that has a name, below the axes."""
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
