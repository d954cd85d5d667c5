"""What came of a sweep: the best trial, the Pareto front, the best over cost, and tables; pure functions of trials.

Only finished trials, those scored at the last rung, compete with each other: scores on smaller tasks are another scale.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boom_ray.config.sweep import WEIGHTS, SweepConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation import report
from boom_ray.sweeps.cells import Cell, found_cells, label, parameters, weight_parts
from boom_ray.sweeps.failures import RETRY
from boom_ray.sweeps.trials import Point, Trial


@dataclass(frozen=True)
class Standing:
    """Where the search stood after a trial.

    Attributes:
        number: of the trial.
        trials: how many there were until then, this one included.
        seconds: computing time of all of them; training of members is not in it.
        value: the best objective of the finished ones; None before the first.
    """

    number: int
    trials: int
    seconds: float
    value: float | None


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were scored at the last rung, by number."""
    return sorted((trial for trial in trials if trial.status == "finished"), key=lambda trial: trial.number)


def best(trials: Sequence[Trial], objective: str | None = None) -> Trial:
    """The finished trial with the largest objective; of equals the one with the lowest number.

    Args:
        trials: in any order.
        objective: its name; None: the first that the trials have.

    Raises:
        EvaluationError: none has finished; the text says why most failed.
    """
    done = _some_finished(trials)
    name = objective or next(iter(done[0].objectives))
    return max(done, key=lambda trial: (trial.objectives[name], -trial.number))


def pareto(trials: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """The finished trials that no other beats: nowhere worse and somewhere better.

    Args:
        trials: in any order.
        names: the objectives.

    Returns:
        By the first objective, smallest first, then by the next. Of trials that are equal in every objective the one
        with the lowest number.
    """
    places: dict[tuple[float, ...], Trial] = {}
    for trial in finished(trials):
        places.setdefault(tuple(trial.objectives[name] for name in names), trial)
    values = np.array(list(places), dtype=np.float64).reshape(len(places), len(names))
    beaten = [bool(((values >= one).all(axis=1) & (values > one).any(axis=1)).any()) for one in values]
    return [places[place] for place, bad in sorted(zip(places, beaten, strict=True)) if not bad]


def knee(front: Sequence[Trial], names: Sequence[str] | None = None) -> Trial:
    """The trial of a front that is reported when there are several objectives.

    Every objective is scaled to its range over the front, 1 at its best. The trial closest to the point that is best
    in all of them is taken (compromise programming: Yu, "A class of solutions for group decision problems", 1973,
    with the Euclidean distance); of equals the one with the lowest number. On a front of one or two trials that is
    the lowest number.

    Args:
        front: see `pareto`.
        names: the objectives; None: all that the trials have.

    Raises:
        EvaluationError: the front is empty.
    """
    return ranked(front, names or list(_some_finished(front)[0].objectives))[0]


def chosen(trials: Sequence[Trial], names: Sequence[str]) -> Trial:
    """The trial that a sweep reports: `best` for one objective, the `knee` of the front for several.

    Raises:
        EvaluationError: none has finished; the text says why most failed.
    """
    _some_finished(trials)
    return ranked(trials, names)[0]


def ranked(trials: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """Finished trials, best first: by the objective, or for several by the distance that `knee` goes by, front first.

    Args:
        trials: in any order.
        names: the objectives.
    """
    done = finished(trials)
    if len(names) == 1 or not done:
        return sorted(done, key=lambda trial: -trial.objectives[names[0]])
    values = np.array([[trial.objectives[name] for name in names] for trial in done])
    front = [trial.number for trial in pareto(done, names)]
    on_front = np.array([trial.number in front for trial in done])
    ideal = values[on_front].max(axis=0)
    spans = ideal - values[on_front].min(axis=0)
    distances = np.linalg.norm((ideal - values) / np.where(spans > 0, spans, 1.0), axis=1).round(12)
    order = sorted(range(len(done)), key=lambda place: (not on_front[place], distances[place]))
    return [done[place] for place in order]


def best_so_far(trials: Sequence[Trial], objective: str | None = None) -> list[Standing]:
    """The best finished trial after every trial, in the order of suggestion, and what all had cost by then.

    Args:
        trials: in any order.
        objective: its name; None: the first that the trials have.
    """
    standings: list[Standing] = []
    seconds, value = 0.0, None
    for count, trial in enumerate(sorted(trials, key=lambda trial: trial.number), start=1):
        seconds += trial.seconds
        if trial.status == "finished":
            found = trial.objectives[objective or next(iter(trial.objectives))]
            value = found if value is None else max(value, found)
        standings.append(Standing(trial.number, count, seconds, value))
    return standings


def statistics(trials: Sequence[Trial]) -> dict[str, float]:
    """Counts of trials by status, of answers and those that were in the store, and computing time in seconds."""
    statuses = Counter(trial.status for trial in trials)
    answers = [answer for trial in trials for answer in trial.answers]
    return {
        "trials": len(trials),
        "finished": statuses["finished"],
        "stopped": statuses["stopped"],
        "failed": statuses["failed"],
        "answers": len(answers),
        "stored": sum(answer.stored for answer in answers),
        "seconds": math.fsum(answer.seconds for answer in answers),
    }


def rows(trials: Sequence[Trial], config: SweepConfig) -> list[dict[str, Cell]]:
    """A flat row per trial, by number, all with the same columns; None where there is no value.

    The columns: ``number``, ``status``, ``rung`` (the last that was scored, from 0), with several objectives ``front``
    (``yes`` for a trial of their Pareto front, else empty), ``objective.NAME``,
    ``score.TASK`` (both at that rung), every parameter (see `parameters`), what merges searched themselves (see
    `found_cells`), ``seconds`` and ``error``.

    Args:
        trials: in any order.
        config: whose space and objectives they are of.
    """
    ordered = sorted(trials, key=lambda trial: trial.number)
    points = [parameters(trial.point, config) | found_cells(trial.found, config) for trial in ordered]
    columns = list(dict.fromkeys(name for point in sorted(points, key=len, reverse=True) for name in point))
    objectives = [objective.name for objective in config.sweep.objectives]
    on_front = front_cell(trials, objectives)
    configured = [task.name for task in config.evaluation.selection]
    tasks = dict.fromkeys([*configured, *(name for trial in ordered for name in trial.scores)])
    result = []
    for trial, point in zip(ordered, points, strict=True):
        rung = sum(not answer.error for answer in trial.answers) - 1
        row: dict[str, Cell] = {"number": trial.number, "status": trial.status, "rung": rung if rung >= 0 else None}
        row |= on_front(trial)
        row |= {f"objective.{name}": trial.objectives.get(name) for name in objectives}
        row |= {f"score.{name}": trial.scores.get(name) for name in tasks}
        row |= {name: point.get(name) for name in columns}
        result.append(row | {"seconds": trial.seconds, "error": trial.error})
    return result


def front_cell(trials: Sequence[Trial], names: Sequence[str]) -> Callable[[Trial], dict[str, str]]:
    """Gives a trial's cell ``front`` of tables: ``yes`` on the Pareto front, else empty; no cell with one objective.

    Args:
        trials: all of them, in any order.
        names: the objectives.
    """
    if len(names) == 1:
        return lambda trial: {}
    numbers = {trial.number for trial in pareto(trials, names)}
    return lambda trial: {"front": "yes" if trial.number in numbers else ""}


def markdown(trials: Sequence[Trial], config: SweepConfig, top: int = 10) -> str:
    """The best finished trials as a Markdown table, best first (see `ranked`); empty where none has finished.

    Args:
        trials: in any order.
        config: whose space and objectives they are of.
        top: most rows.
    """
    names = [objective.name for objective in config.sweep.objectives]
    keys = [key for key in config.sweep.space if any(key in trial.point for trial in trials)]
    table: list[report.Row] = []
    on_front = front_cell(trials, names)
    for trial in ranked(trials, names)[:top]:
        row: report.Row = {"trial": str(trial.number), **on_front(trial)}
        row |= {name: float(trial.objectives[name]) for name in names}
        row |= {key: _words(trial.point, key, config) for key in keys}
        if any(one.found.get("weights") for one in trials):
            row["weights found"] = " / ".join(f"{weight:.3f}" for weight in trial.found.get("weights", [])) or None
        table.append(row | {"seconds": f"{trial.seconds:.1f}"})
    return report.markdown(table)


def _words(point: Point, key: str, config: SweepConfig) -> str | None:
    """A parameter for people: numbers with three digits, weights of all members in one cell."""
    if key not in point:
        return None
    if key == WEIGHTS and (parts := weight_parts(point, config)):
        texts = {part: " / ".join(f"{weight:.3f}" for weight in weights) for part, weights in parts.items()}
        return "; ".join(f"{part}: {text}" if part else text for part, text in texts.items())
    value = label(point[key])
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def _some_finished(trials: Sequence[Trial]) -> list[Trial]:
    """See `finished`.

    Raises:
        EvaluationError: there are none.
    """
    if done := finished(trials):
        return done
    errors = Counter(trial.error for trial in sorted(trials, key=lambda trial: trial.number) if trial.error)
    text = f"None of the sweep's {len(trials)} trials finished"
    if not errors:
        raise EvaluationError(f"{text}, and none failed: raise sweep.trials or sweep.hours.")
    reason, count = errors.most_common(1)[0]
    raise EvaluationError(
        f"{text}; {errors.total()} failed, {count} of them with: {reason} Mend that and start the sweep again "
        f"with {RETRY}: a trial that failed stays failed else."
    )
