"""Pictures of a sweep as matplotlib figures: what it found, at what cost, and which parameters decide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boom_ray.config.sweep import ObjectiveConfig, SweepConfig
from boom_ray.flows.pictures.canvas import COLOURS, GAIN, STYLES, canvas
from boom_ray.flows.pictures.comparison import EVEN, staircase
from boom_ray.flows.pictures.weights import (
    WeightedTrials,
    _legend,
    _marker,
    cut_off,
    score_over_weights,
    shown_from,
    star,
)
from boom_ray.sweeps.cells import label, member_names, weight_parts
from boom_ray.sweeps.importance import Importance, importance
from boom_ray.sweeps.outcome import Standing, best_so_far, chosen, finished, pareto
from boom_ray.sweeps.trials import Trial

METRICS = {
    "mean": "mean of the tasks' main scores",
    "mean_by_type": "mean of the task types' mean scores",
    "worst": "lowest main score of a task",
}
BARS = 20
"""Most parameters with a bar of their own."""
Marked = Mapping[str, Mapping[str, float]]
"""Name of a model to its objectives by name."""


def sweep_figures(trials: Sequence[Trial], config: SweepConfig, marked: Marked) -> dict[str, Figure]:
    """All pictures that apply, by file name.

    For every objective ``best_so_far``, ``importance``, and ``weights_M`` per number M of members, or
    ``weights_M_partI`` per part of the model with weights of its own; with several objectives followed by ``_NAME``.
    For two objectives ``pareto``, for more ``pareto_NAME_NAME`` per pair. A sweep of which no trial has finished has
    no pictures, except those of importance at a lower rung.

    Args:
        trials: in any order.
        config: whose space and objectives they are of.
        marked: models to compare with, e.g. equal weights, best member and baseline, by their scores on whole tasks; an
            objective may be missing. Left out where trials end on smaller tasks, whose scores are not comparable.
    """
    figures: dict[str, Figure] = {}
    marked = marked if config.sweep.rungs[-1] is None else {}
    several = len(config.sweep.objectives) > 1
    done = finished(trials)
    for objective in config.sweep.objectives:
        ending = f"_{objective.name}.png" if several else ".png"
        words = _words(objective)
        if done:
            lines = {name: values[objective.name] for name, values in marked.items() if objective.name in values}
            standings = best_so_far(trials, objective.name)
            scores = {trial.number: trial.objectives[objective.name] for trial in done}
            figures[f"best_so_far{ending}"] = best_over_cost(standings, scores, words, lines)
        found = importance(trials, config, objective.name)
        if found is not None:
            figures[f"importance{ending}"] = importance_bars(found, objective.name)
        figures |= {
            f"{name}{ending}": score_over_weights(one) for name, one in weighted_trials(done, config, objective).items()
        }
    for one, other in itertools.combinations(config.sweep.objectives, 2) if done else ():
        name = "pareto.png" if len(config.sweep.objectives) == 2 else f"pareto_{one.name}_{other.name}.png"
        figures[name] = pareto_front(trials, (one, other), config, marked)
    return figures


def weighted_trials(
    trials: Sequence[Trial], config: SweepConfig, objective: ObjectiveConfig
) -> dict[str, WeightedTrials]:
    """Finished trials with weights by ``weights_M`` or ``weights_M_partI`` (parts counted from 1); no single members.

    Args:
        trials: by number.
        config: whose space they are of.
        objective: what the scores are.
    """
    groups: dict[tuple[str, str], list[tuple[Trial, list[float]]]] = {}
    for trial in trials:
        for place, (part, weights) in enumerate(weight_parts(trial.point, config).items(), start=1):
            name = f"weights_{len(weights)}" + (f"_part{place}" if part else "")
            if len(weights) > 1:
                groups.setdefault((name, part), []).append((trial, weights))
    alone = set(config.sweep.space) <= {"merge.method", "merge.weights"}
    return {
        name: WeightedTrials(
            members=[f"member {one}" if one.isdigit() else one for one in member_names(config, len(found[0][1]))],
            weights=np.array([weights for _, weights in found]),
            scores=np.array([trial.objectives[objective.name] for trial, _ in found]),
            methods=[_method(trial, config) for trial, _ in found],
            numbers=[trial.number for trial, _ in found],
            label=_words(objective),
            part=part,
            alone=alone and not part,
        )
        for (name, part), found in groups.items()
    }


def pareto_front(
    trials: Sequence[Trial], pair: tuple[ObjectiveConfig, ObjectiveConfig], config: SweepConfig, marked: Marked
) -> Figure:
    """Finished trials by two objectives, with the front and the trial that the sweep reports.

    With more than two objectives the front is that of all of them, and no line joins it.

    Args:
        trials: in any order, one of them finished.
        pair: the objectives of the two axes.
        config: whose objectives they are of.
        marked: models to compare with; those that lack an objective of the pair are left out.
    """
    names = [objective.name for objective in config.sweep.objectives]
    axis = [objective.name for objective in pair]
    done, front, reported = finished(trials), pareto(trials, names), chosen(trials, names)
    numbers = {trial.number for trial in front}
    extra = {name: values for name, values in marked.items() if all(one in values for one in axis)}
    figure, axes = canvas(8.0, 6.0)
    _cut_both(
        axes, _places([trial.objectives for trial in done], axis), _places([*extra.values(), reported.objectives], axis)
    )
    groups = {"beaten by another": [trial for trial in done if trial.number not in numbers], "Pareto front": front}
    for (kind, found), colour, size in zip(groups.items(), (EVEN, GAIN), (18, 40), strict=True):
        if found:
            places = _places([trial.objectives for trial in found], axis)
            hidden = int((places < [axes.get_xlim()[0], axes.get_ylim()[0]]).any(axis=1).sum())
            words = f"{kind} ({len(found)}" + (f", {hidden} outside)" if hidden else ")")
            axes.scatter(places[:, 0], places[:, 1], color=colour, s=size, label=words, zorder=3)
    for place, (name, values) in enumerate(extra.items(), start=1):
        colour = COLOURS[place % len(COLOURS)]
        x, y = (values[one] for one in axis)
        axes.scatter(x, y, color=colour, marker=_marker(place), s=70, label=name, zorder=4)
    star(axes, _places([reported.objectives], axis)[0], f"chosen: trial {reported.number}")
    axes.set(title="Trials and their Pareto front", xlabel=_words(pair[0]), ylabel=_words(pair[1]))
    axes.ticklabel_format(useOffset=False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if len(names) == 2:
        corners = [(float(x), float(y)) for x, y in _places([trial.objectives for trial in front], axis)]
        axes.plot(*zip(*staircase(corners, True, axes), strict=True), color=GAIN, linewidth=1.2, zorder=2)
    _legend(figure)
    return figure


def _cut_both(axes: Axes, places: np.ndarray, needed: np.ndarray) -> None:
    """Limits around the places [trials, 2] without outliers below, and around those that must be seen [models, 2]."""
    lows = np.minimum([shown_from(column) for column in places.T], needed.min(axis=0))
    highs = np.concatenate([places[(places >= lows).all(axis=1)], needed]).max(axis=0)
    for side, low, high in zip("xy", lows, highs, strict=True):
        margin = 0.06 * (high - low) or 0.01
        axes.set(**{f"{side}lim": (low - margin, high + margin)})


def importance_bars(found: Importance, objective: str) -> Figure:
    """Share of every parameter in what all of them explain, largest first; many small ones have one bar together.

    Args:
        found: the shares.
        objective: its name.
    """
    shares = list(found.shares.items())
    if len(shares) > BARS:
        rest = shares[BARS - 1 :]
        shares = [*shares[: BARS - 1], (f"{len(rest)} others", sum(share for _, share in rest))]
    figure, axes = canvas(8.0, 1.9 + 0.3 * len(shares))
    percent = [100 * share for _, share in shares]
    axes.barh(range(len(shares)), percent, color=GAIN, height=0.7)
    for place, value in enumerate(percent):
        axes.annotate(f"{value:.1f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(shares)), [name for name, _ in shares])
    axes.set(ylim=(len(shares) - 0.4, -0.6), xlim=(0, 1.1 * percent[0]))
    axes.set(xlabel="share of what the parameters explain (%)")
    axes.set_title(
        f"What decides {objective}\nall together explain {100 * found.explained:.0f} % of the order of trials not "
        f"looked at; {found.trials} trials at rung {found.rung}", fontsize="medium",
    )  # fmt: skip
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return figure


def best_over_cost(
    standings: Sequence[Standing], scores: Mapping[int, float], words: str, marked: Mapping[str, float]
) -> Figure:
    """The best score so far over computing time, or over trials where all answers were free.

    Args:
        standings: after every trial, see `boom_ray.sweeps.outcome.best_so_far`.
        scores: number of each finished trial to its score; one or more.
        words: what the scores are.
        marked: models to compare with and their scores, drawn as lines across.
    """
    figure, axes = canvas(8.0, 5.0)
    total = standings[-1].seconds
    unit, size = next((name, size) for name, size in _UNITS if total >= 2 * size or size == 1)
    costs = {one.number: one.seconds / size if total else float(one.trials) for one in standings}
    known = [(costs[one.number], one.value) for one in standings if one.value is not None]
    for place, (name, score) in enumerate(marked.items(), start=1):
        style = STYLES[place % len(STYLES)]
        axes.axhline(score, color=COLOURS[place % len(COLOURS)], linestyle=style, label=f"{name} ({score:.4f})")
    axes.scatter([costs[number] for number in scores], list(scores.values()), color=EVEN, s=14, label="one trial")
    axes.step(
        *zip(*known, strict=True), where="post", color=GAIN, linewidth=2, label=f"best so far ({known[-1][1]:.4f})"
    )
    axes.set(title="Best trial so far", ylabel=words)
    axes.set_xlabel(f"computing time of merges and evaluations ({unit})" if total else "trials")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    lowest = min([shown_from(list(scores.values())), *marked.values()])
    cut_off(axes, [costs[number] for number in scores], list(scores.values()), lowest)
    if total:
        _count_trials(axes, [(costs[one.number], one.trials) for one in standings])
    _legend(figure)
    return figure


_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def _count_trials(axes: Axes, ends: Sequence[tuple[float, int]]) -> None:
    """A second scale above: how many trials had ended by some of the times, as many as fit."""
    apart = ends[-1][0] / 10
    shown = [ends[-1]]
    for cost, count in reversed(ends[:-1]):
        if shown[-1][0] - cost >= apart:
            shown.append((cost, count))
    above = axes.secondary_xaxis("top")
    above.set_xticks([cost for cost, _ in shown], [str(count) for _, count in shown])
    above.set_xlabel("trials")


def _places(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """[models, objectives]."""
    return np.array([[values[name] for name in names] for values in found], dtype=np.float64)


def _words(objective: ObjectiveConfig) -> str:
    return f"{objective.name}: {METRICS[objective.metric]}"


def _method(trial: Trial, config: SweepConfig) -> str:
    """What the trial was merged by: the searched method, or recipe as a whole, or the run's method."""
    found = [trial.point[key] for key in ("merge.method", "merge") if key in trial.point]
    return str(label(found[0])) if found else config.merge.method
