"""The searchers behind a sweep: optuna's samplers through Ray's OptunaSearch, and lists of points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import boom_ray.runtime  # noqa: F401  isort: skip  (sets Ray's environment before Ray is imported)

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from threadpoolctl import threadpool_limits

from boom_ray.config import SearchConfig
from boom_ray.sweeps.mailbox import POINT, metric
from boom_ray.sweeps.space import Option, Suggest
from boom_ray.sweeps.trials import Point

STARTUP = 10
Sample: TypeAlias = Callable[[Suggest], Point]


class OptunaSuggest:
    """A trial of optuna's as a `Suggest`. It sees the places of options only: optuna takes 1 and true for one value."""

    def __init__(self, trial: optuna.Trial) -> None:
        """Ask this trial."""
        self._trial = trial

    def choice(self, name: str, options: Sequence[Option]) -> Option:
        """See `Suggest.choice`."""
        return options[self._trial.suggest_categorical(name, range(len(options)))]

    def uniform(self, name: str, low: float, high: float, log: bool = False) -> float:
        """See `Suggest.uniform`."""
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        """See `Suggest.integer`."""
        return self._trial.suggest_int(name, low, high)


class OneThreadOptuna(OptunaSearch):  # type: ignore[misc]
    """OptunaSearch for Gaussian processes, whose arithmetic runs in one thread: for matrices this small that takes a
    quarter of the CPU time of two, and the last bits do not depend on how many CPUs a machine has.
    """

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """See `OptunaSearch.suggest`; a suggestion may take a second, which is worth no warning here."""
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: dict[str, Any] = super().suggest(trial_id)
            return found


class PointSearcher(Searcher):  # type: ignore[misc]
    """Suggests points from an iterator until it has no more, and learns nothing."""

    def __init__(self, points: Iterator[Point]) -> None:
        """Nothing is taken from the iterator yet."""
        super().__init__()
        self._points = points

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next point."""
        found = next(self._points, None)
        if found is None:
            finished: str = Searcher.FINISHED
            return finished
        return {POINT: found}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn."""


def make_searcher(settings: SearchConfig, sample: Sample, points: Iterator[Point] | None) -> Searcher:
    """The searcher of the settings; its suggestions hold the point under the key ``point``.

    Args:
        settings: searcher, seed, batch and objectives.
        sample: a point of the space, value by value; for optuna's samplers.
        points: for searchers that have none (grid, learned): the points, one after another.
    """
    if points is not None:
        return PointSearcher(points)
    metrics = [metric(objective.name) for objective in settings.objectives]
    several = len(metrics) > 1

    def space(trial: Any) -> dict[str, Any]:
        # OptunaSearch wraps the trial to collect single values; past it, only the point itself is the suggestion
        return {POINT: sample(OptunaSuggest(getattr(trial, "ot_trial", trial)))}

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wrapper = OneThreadOptuna if settings.searcher == "gp" else OptunaSearch
    return wrapper(
        space,
        metric=metrics if several else metrics[0],
        mode=["max"] * len(metrics) if several else "max",
        sampler=make_sampler(settings),
    )


def make_sampler(settings: SearchConfig) -> optuna.samplers.BaseSampler:
    """The sampler of that name.

    The number of trials is in none of them: it may grow later, and the first trials must stay what they were.

    * tpe: multivariate TPE (Falkner et al., BOHB, 2018), each group of parameters that occur together for itself;
      trials of the batch that have no result yet count as bad ones, so that a batch spreads.
    * gp: Gaussian process with expected improvement, which counts in trials without a result, too; over what all
      trials have, the rest one by one by TPE. It learns from trials that reached the last rung.
    * cmaes: CMA-ES (Hansen, 2016) over the numbers that all trials have; choices and what depends on them one by one
      by TPE. It learns from trials that reached the last rung.
    * nsga2: NSGA-II (Deb et al., 2002), generations of at least two batches.
    """
    seed, startup = settings.seed, max(STARTUP, settings.batch)
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        rest = samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True, n_startup_trials=startup)
        match settings.searcher:
            case "tpe":
                return samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=startup
                )
            case "gp":
                return samplers.GPSampler(
                    seed=seed, n_startup_trials=startup, independent_sampler=rest, warn_independent_sampling=False
                )
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, independent_sampler=rest, warn_independent_sampling=False)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=max(STARTUP, 2 * settings.batch))
            case _:
                return samplers.RandomSampler(seed=seed)
