"""What goes into a comparison of two models and what comes out of it; see `boom_ray.evaluation.compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from boom_ray.evaluation.scores import Group
from boom_ray.evaluation.significance import Interval

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class TaskScore:
    """What one run of one model achieved on one task.

    Attributes:
        task: name of the task.
        type: mteb's task type (``Retrieval``, ``STS``…).
        group: ``in_domain`` or ``out_of_domain``.
        value: main score, 1 is perfect; correlations lie in [-1, 1], all others in [0, 1].
        queries: main metric of every query by ``subset/query id``, whose mean over subsets of the mean over queries
            is ``value``; None where the metric has no values per query.
        metric: mteb's name of the main score (``ndcg_at_10``…).
    """

    task: str
    type: str
    group: Group
    value: float
    queries: Mapping[str, float] | None = None
    metric: str = ""


Scores: TypeAlias = Mapping[str, TaskScore]
"""One run's scores by task."""
Runs: TypeAlias = Scores | Sequence[Scores]
"""One model: a single run, or runs that differ by seed."""


@dataclass(frozen=True)
class Pair:
    """A mean of both models, and the second less the first; 1 is perfect."""

    first: float
    second: float
    difference: float


@dataclass(frozen=True)
class TaskComparison:
    """Both models on one task; scores are means over runs.

    Attributes:
        task: name of the task.
        type: mteb's task type.
        group: ``in_domain`` or ``out_of_domain``.
        metric: mteb's name of the main score.
        first: score of the first model.
        second: score of the second model.
        difference: ``second`` less ``first``.
        first_std: standard deviation over the first model's runs, None with one run.
        second_std: likewise.
        queries: queries with values of every run of both, over which the difference is tested.
        unpaired: queries that some run lacks, left out of the test.
        interval: bootstrap interval of the difference over queries, None where it is not tested.
        p: of the sign-flip permutation test over queries, None where it is not tested.
        p_holm: ``p`` adjusted for the number of tested tasks.
        tested: at least one subset has two such queries or more.
        verdict: whether the second model is better: by ``p_holm`` where tested, else by the difference alone.
    """

    task: str
    type: str
    group: Group
    metric: str
    first: float
    second: float
    difference: float
    first_std: float | None
    second_std: float | None
    queries: int
    unpaired: int
    interval: Interval | None
    p: float | None
    p_holm: float | None
    tested: bool
    verdict: Verdict


@dataclass(frozen=True)
class Aggregate:
    """Both models over several tasks.

    The tests ask whether the difference would hold on other tasks of this kind, the tasks being a sample of them.

    Attributes:
        tasks: number of tasks.
        mean_task: mean over tasks.
        mean_type: mean over the task types' means.
        types: mean over the tasks of each type.
        interval: bootstrap interval over tasks of ``mean_task``'s difference, None for one task.
        wilcoxon: p-value of the signed-rank test over tasks.
        permutation: p-value of the sign-flip permutation test over tasks.
        wins: tasks on which the second model is better, by their verdicts.
        ties: tasks without a verdict for either.
        losses: tasks on which it is worse.
        verdict: better or worse only where the interval and both tests say so.
    """

    tasks: int
    mean_task: Pair
    mean_type: Pair
    types: Mapping[str, Pair]
    interval: Interval | None
    wilcoxon: float
    permutation: float
    wins: int
    ties: int
    losses: int
    verdict: Verdict


@dataclass(frozen=True)
class RunMeans:
    """How much the runs (seeds) of each model differ.

    Attributes:
        first: mean over the common tasks, one per run of the first model.
        second: likewise.
        first_std: their standard deviation, None with one run.
        second_std: likewise.
        welch: p-value of Welch's t-test between them; None unless both have two runs that are not all equal.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    first_std: float | None
    second_std: float | None
    welch: float | None


@dataclass(frozen=True)
class Comparison:
    """All that `compare` finds.

    Attributes:
        names: of the first and the second model.
        level: confidence of all intervals; a p-value below ``1 - level`` is significant.
        tie: smaller differences of untested tasks are ties.
        seed: of the random numbers.
        resamples: of every bootstrap and permutation test.
        tasks: the tasks that all runs of both have, in the order of the first model's.
        overall: over all of them.
        groups: over those of each group that has any.
        runs: variation between seeds.
        only_first: tasks of the first model that the second lacks.
        only_second: tasks of the second model that the first lacks.
        incomplete: tasks that some but not all runs of a model have; like the two above, left out.
    """

    names: tuple[str, str]
    level: float
    tie: float
    seed: int
    resamples: int
    tasks: tuple[TaskComparison, ...]
    overall: Aggregate
    groups: Mapping[str, Aggregate]
    runs: RunMeans
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    incomplete: tuple[str, ...]
