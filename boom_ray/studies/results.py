"""What a study measured: every arm's scores and costs by seed; all that its report is made from, also as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from boom_ray.errors import EvaluationError
from boom_ray.evaluation.comparison import Scores, TaskScore

FORMAT = 1
"""Of the JSON."""


@dataclass(frozen=True)
class Cost:
    """What one arm takes for one seed if nothing else is trained.

    Attributes:
        runs: training in full-run units: examples seen, over those of one epoch of all data; with the search for
            clusters where its members are clusters.
        seconds: measured time of the same trainings, one after the other, whenever they were done.
        members: how many it trains.
        shared_runs: the part of ``runs`` that other arms need too, so that the study trains it only once.
    """

    runs: float
    seconds: float
    members: int
    shared_runs: float = 0.0


@dataclass(frozen=True)
class ArmResult:
    """One arm, made once.

    Attributes:
        name: of the arm.
        seed: that it was made with.
        scores: task to score of its product.
        cost: of making it.
    """

    name: str
    seed: int
    scores: Scores
    cost: Cost


@dataclass(frozen=True)
class Failed:
    """An arm that could not be made for a seed.

    Attributes:
        arm: its name.
        seed: the seed.
        error: why.
    """

    arm: str
    seed: int
    error: str


@dataclass(frozen=True)
class StudyResult:
    """A whole study.

    Attributes:
        name: of the study.
        titles: every arm that was asked for to a few words about it, in the order of all tables; an empty title
            stands for the name.
        seeds: that were asked for.
        baseline: the arm that all others are compared with.
        runs: what was made, in any order; a pair of arm and seed that is neither here nor in ``failures`` is missing.
        base: scores of the base model before any training, or None.
        failures: what could not be made.

    Raises:
        EvaluationError: the baseline or the arm of a run was not asked for, or an arm was made twice for a seed.
    """

    name: str
    titles: Mapping[str, str]
    seeds: tuple[int, ...]
    baseline: str
    runs: tuple[ArmResult, ...]
    base: Scores | None = None
    failures: tuple[Failed, ...] = ()

    def __post_init__(self) -> None:
        made = [(run.name, run.seed) for run in self.runs]
        for name in [self.baseline, *(name for name, _ in made), *(one.arm for one in self.failures)]:
            if name not in self.titles:
                raise EvaluationError(f"The study {self.name} has no arm {name}; it has {', '.join(self.titles)}.")
        if twice := sorted({pair for pair in made if made.count(pair) > 1}):
            raise EvaluationError(
                f"The study {self.name} has arm {twice[0][0]} with seed {twice[0][1]} more than once."
            )

    @cached_property
    def arms(self) -> Mapping[str, Mapping[int, ArmResult]]:
        """Every arm that was asked for to its runs by seed, both in order; one that was never made has none."""
        found = {(run.name, run.seed): run for run in self.runs}
        seeds = [*self.seeds, *sorted({run.seed for run in self.runs} - set(self.seeds))]
        return {name: {seed: found[name, seed] for seed in seeds if (name, seed) in found} for name in self.titles}

    @cached_property
    def tasks(self) -> Mapping[str, TaskScore]:
        """Every task to one of its scores, for its type and group; in the order in which they first appear."""
        every = [run.scores for runs in self.arms.values() for run in runs.values()]
        found: dict[str, TaskScore] = {}
        for scores in [*every, *([self.base] if self.base else [])]:
            for task, score in scores.items():
                found.setdefault(task, score)
        return found

    @cached_property
    def missing(self) -> tuple[Failed, ...]:
        """All pairs of arm and seed without a result, by arm and seed, with the reason as far as it is known."""
        errors = {(one.arm, one.seed): one.error for one in self.failures}
        return tuple(
            Failed(name, seed, errors.get((name, seed), "was not made"))
            for name, runs in self.arms.items()
            for seed in self.seeds
            if seed not in runs
        )


def to_json(study: StudyResult) -> dict[str, Any]:
    """All of a study as JSON values; `from_json` gives an equal one back.

    Lists of query ids, the bulk of the scores, are written once for all runs that have the same ones.
    """
    queries: dict[tuple[str, ...], int] = {}
    runs = [
        {"arm": run.name, "seed": run.seed, "cost": asdict(run.cost), "scores": _scores_to_json(run.scores, queries)}
        for run in study.runs
    ]
    base = None if study.base is None else _scores_to_json(study.base, queries)
    return {
        "format": FORMAT,
        "name": study.name,
        "arms": [{"name": name, "title": title} for name, title in study.titles.items()],
        "seeds": list(study.seeds),
        "baseline": study.baseline,
        "runs": runs,
        "base": base,
        "failures": [asdict(one) for one in study.failures],
        "queries": [list(ids) for ids in queries],
    }


def from_json(found: Mapping[str, Any]) -> StudyResult:
    """The study that `to_json` wrote.

    Raises:
        EvaluationError: it is of another format, or something is missing or of another form.
    """
    if found.get("format") != FORMAT:
        raise EvaluationError(
            f"The study's results have the format {found.get('format')}, this version of boom_ray reads {FORMAT}. Run "
            f"the study again; what is in the store is not computed again."
        )
    try:
        queries: Sequence[Sequence[str]] = found["queries"]
        return StudyResult(
            name=found["name"],
            titles={one["name"]: one["title"] for one in found["arms"]},
            seeds=tuple(found["seeds"]),
            baseline=found["baseline"],
            runs=tuple(
                ArmResult(one["arm"], one["seed"], _scores_from_json(one["scores"], queries), Cost(**one["cost"]))
                for one in found["runs"]
            ),
            base=None if found["base"] is None else _scores_from_json(found["base"], queries),
            failures=tuple(Failed(**one) for one in found["failures"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EvaluationError(f"The study's results cannot be read: {error!r}.") from error


def _scores_to_json(scores: Scores, queries: dict[tuple[str, ...], int]) -> list[dict[str, Any]]:
    """One object per task; ``queries`` gains the lists of ids that it lacks."""
    return [
        {
            "task": score.task,
            "type": score.type,
            "group": score.group,
            "metric": score.metric,
            "value": score.value,
            "queries": None if score.queries is None else queries.setdefault(tuple(score.queries), len(queries)),
            "values": None if score.queries is None else list(score.queries.values()),
        }
        for score in scores.values()
    ]


def _scores_from_json(found: Sequence[Mapping[str, Any]], queries: Sequence[Sequence[str]]) -> Scores:
    scores = {}
    for one in found:
        ids = None if one["queries"] is None else queries[one["queries"]]
        values = None if ids is None else dict(zip(ids, one["values"], strict=True))
        scores[one["task"]] = TaskScore(one["task"], one["type"], one["group"], one["value"], values, one["metric"])
    return scores
