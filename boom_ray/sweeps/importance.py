"""How much each parameter of a sweep matters for an objective."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor

from boom_ray.config.sweep import ParameterConfig, SweepConfig
from boom_ray.sweeps.cells import label, weight_cells, weight_parts
from boom_ray.sweeps.trials import Point, Trial

LEAST = 10
"""Fewest trials of one rung that are looked at."""
TREES, FOLDS, DRAWS = 64, 5, 20
Floats = npt.NDArray[np.float64]
_Row: TypeAlias = list[float]


@dataclass(frozen=True)
class Importance:
    """What a forest of trees makes of the parameters.

    Attributes:
        shares: parameter to its share of what all of them explain, largest first; they sum to 1.
        explained: share of the variance of the objective's ranks that the forest predicts on trials it has not seen, in
            (0, 1].
        rung: whose scores these are, from 0.
        trials: how many it was fitted to.
    """

    shares: Mapping[str, float]
    explained: float
    rung: int
    trials: int


@dataclass
class _Parameter:
    """Columns of one parameter, [trials, columns], and the trials to which it applies, [trials]."""

    name: str
    values: Floats
    present: npt.NDArray[np.bool_]
    parent: str | None


def importance(
    trials: Sequence[Trial], config: SweepConfig, objective: str | None = None, seed: int = 0
) -> Importance | None:
    """Permutation importance of every parameter, by a random forest on trials that it was not fitted to.

    How much a prediction gets worse when one parameter takes its values from other trials, in squared error over five
    folds; parameters that make nothing worse get 0. Objectives count by their ranks, or a few merges that collapsed
    would be all that there is to explain. A choice has a column per value. A parameter that applies to some trials
    only moves among those; that it applies is the doing of the parameter that decides it, and moves with that one.
    Every member's weight is a parameter of its own; of two members only the first, for the second is the rest.
    Parameters that tell the same (weights of many members sum to 1) share what they explain.

    Source: Breiman, "Random forests", Machine Learning 45, 2001, section 10, with folds in place of bootstrap samples.

    Args:
        trials: in any order; those are looked at that have an answer at the highest rung that has ten.
        config: whose space they are of.
        objective: its name; None: the first that the trials have.
        seed: of trees, folds and draws.

    Returns:
        None where it would say nothing: fewer than ten trials at every rung, equal objectives, or a forest that
        predicts no better than the mean.
    """
    rung, used, values = _one_rung(trials, len(config.sweep.rungs), objective)
    if len(used) < LEAST or np.ptp(values) == 0:
        return None
    scores = rankdata(values) / len(used)
    known = _parameters([trial.point for trial in used], config)
    if not known:
        return None
    table, groups = _table(known)
    worse = np.zeros(len(known))
    residual = 0.0
    random = np.random.default_rng(seed)
    for fit, held_out in _folds(len(used), random):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
        forest.fit(table[fit], scores[fit])
        error = (forest.predict(table[held_out]) - scores[held_out]) ** 2
        residual += float(error.sum())
        for place, (parameter, columns) in enumerate(zip(known, groups, strict=True)):
            moving = held_out[parameter.present[held_out]]
            if len(moving):
                moved = _moved(table, moving, columns, np.flatnonzero(parameter.present), random)
                after = (forest.predict(moved).reshape(DRAWS, -1) - scores[moving]) ** 2
                worse[place] += after.mean(axis=0).sum() - error[parameter.present[held_out]].sum()
    explained = 1 - residual / float(((scores - scores.mean()) ** 2).sum())
    gains = worse.clip(min=0)
    if explained <= 0 or gains.sum() == 0:
        return None
    shares = {parameter.name: float(share) for parameter, share in zip(known, gains / gains.sum(), strict=True)}
    return Importance(dict(sorted(shares.items(), key=lambda item: -item[1])), explained, rung, len(used))


def _one_rung(trials: Sequence[Trial], rungs: int, objective: str | None) -> tuple[int, list[Trial], Floats]:
    """The highest rung with enough trials, or else the lowest; its trials by number, and their objectives there."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    used: list[Trial] = []
    for rung in reversed(range(rungs)):
        used = [trial for trial in ordered if len(trial.answers) > rung and not trial.answers[rung].error]
        if len(used) >= LEAST:
            break
    answers = [trial.answers[rung].objectives for trial in used]
    return rung, used, np.array([one[objective or next(iter(one))] for one in answers], dtype=np.float64)


def _folds(count: int, random: np.random.Generator) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Rows to fit to and rows to predict, [n] each; every row is predicted once."""
    for held_out in np.array_split(random.permutation(count), FOLDS):
        yield np.setdiff1d(np.arange(count), held_out), np.sort(held_out)


def _moved(
    table: Floats,
    moving: npt.NDArray[np.intp],
    columns: Sequence[int],
    donors: npt.NDArray[np.intp],
    random: np.random.Generator,
) -> Floats:
    """The moving rows `DRAWS` times over, [draws * rows, columns], each with some columns of a donor's row."""
    copies = np.tile(table[moving], (DRAWS, 1))
    copies[:, columns] = table[random.choice(donors, len(copies))][:, columns]
    return copies


def _table(known: Sequence[_Parameter]) -> tuple[Floats, list[list[int]]]:
    """All columns side by side, [trials, columns], and the columns that move with each parameter.

    A parameter that does not always apply has one more column that says whether it does.
    """
    columns: list[Floats] = []
    groups: dict[str, list[int]] = {parameter.name: [] for parameter in known}
    for parameter in known:
        for column in parameter.values.T:
            groups[parameter.name].append(len(columns))
            columns.append(column)
        if not parameter.present.all():
            if parameter.parent in groups:
                groups[parameter.parent].append(len(columns))
            columns.append(parameter.present.astype(np.float64))
    return np.stack(columns, axis=1), list(groups.values())


def _parameters(points: Sequence[Point], config: SweepConfig) -> list[_Parameter]:
    """Every parameter that a point has, in the order of the space."""
    found = []
    for key, parameter in config.sweep.space.items():
        parent = next(iter(parameter.when), None)
        if parameter.simplex is not None:
            bags = next((one for one in config.sweep.space if one.split(".")[0] == "bags"), None)
            columns = _weights(points, config)
            parent = parent or bags  # where they are more or fewer
        else:
            columns = {key: _rows([[point[key]] if key in point else [] for point in points], parameter)}
        found += [_filled(name, rows, parent) for name, rows in columns.items() if any(rows)]
    return found


def _weights(points: Sequence[Point], config: SweepConfig) -> dict[str, list[_Row]]:
    """Rows of every member's weight; of two members only the first, for the second tells nothing new."""
    cells = [weight_cells(point, config) for point in points]
    names = list(dict.fromkeys(name for one in sorted(cells, key=len, reverse=True) for name in one))
    if all(len(weights) == 2 for point in points for weights in weight_parts(point, config).values()):
        names = names[::2]
    return {name: [[one[name]] if name in one else [] for one in cells] for name in names}


def _rows(values: Sequence[list[Any]], parameter: ParameterConfig) -> list[_Row]:
    """A row per trial: a number per choice, or the number, or how many ratios and each; empty where no value is."""
    if parameter.ratios is not None:
        width = max(len(ratios) for one in values for ratios in one or [[]])
        return [[len(one[0]), *one[0], *[math.nan] * (width - len(one[0]))] if one else [] for one in values]
    if parameter.choice is not None:
        names = sorted({str(label(value)) for one in values for value in one})
        return [[float(str(label(one[0])) == name) for name in names] if one else [] for one in values]
    return [[float(number) for number in one] for one in values]


def _filled(name: str, rows: Sequence[_Row], parent: str | None) -> _Parameter:
    """The rows as one array; what is missing is the median of what is there, so that its value tells nothing."""
    width = max(len(row) for row in rows)
    values = np.array([row or [math.nan] * width for row in rows], dtype=np.float64)
    values = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    return _Parameter(name, values, np.array([bool(row) for row in rows]), parent)
