"""Every value of a search space tried on the configuration, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from boom_ray.config import EvaluationConfig, RunConfig, SweepConfig
from boom_ray.config.sweep import WEIGHTS, label
from boom_ray.errors import ConfigError, EvaluationError, MergeError
from boom_ray.evaluation.benchmarks import task_sizes
from boom_ray.evaluation.proxies import proxy_of
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.sweeps.points import applies, as_listed, field_of, member_count, trial_config, words
from boom_ray.sweeps.simplex import readable
from boom_ray.sweeps.trials import Point


def check_space(config: SweepConfig) -> None:
    """Try every option and both ends of every range, the other parameters at their first values.

    What a parameter depends on takes every value that it may have for it. What is wrong only with certain combinations
    of other values is found by the trial that has them.

    Raises:
        ConfigError: names ``sweep.space.KEY``, the value and what is wrong with the run that it gives.
    """
    for key in config.sweep.space:
        _check_key(key)
    if "seed" in config.sweep.space and config.model.dense:
        raise ConfigError(
            "sweep.space.seed: the first weights of model.dense follow from the seed, so members of every seed would "
            "begin from a base of their own, and merges would be about another. Search bags.members.N.seed (draw and "
            "order of bag N) instead, or remove model.dense."
        )
    _check_first(config)
    tried: set[str] = set()
    for key in config.sweep.ordered():
        for given in _conditions(config, key):
            for value in _ends(config, key, _complete(config, given)):
                point = _complete(config, given | {key: value})
                if words(point) not in tried:
                    tried.add(words(point))
                    _try(config, point, _unusable(key, value))


def check_rungs(rungs: Sequence[int | None], evaluation: EvaluationConfig) -> None:
    """Check that the selection tasks can be scored at every size; whole tasks are checked with all others.

    Args:
        rungs: sizes as the search has them.
        evaluation: the tasks, every path given; its seed decides which rows a proxy has.

    Raises:
        ConfigError: names ``sweep.rungs``, the size, and every task for which it is too small.
    """
    for size in rungs:
        if size is None:
            continue
        try:
            task_sizes(proxy_of(evaluation.selection, size), evaluation.seed)
        except EvaluationError as error:
            raise ConfigError(f"sweep.rungs: {size} is too small; take larger sizes.\n{error}") from None


def example(config: SweepConfig) -> RunConfig:
    """A run of the space, one with weights if they are searched: for what takes a model's tensors to check."""
    given = next(_conditions(config, WEIGHTS)) if WEIGHTS in config.sweep.space else {}
    return trial_config(config, _complete(config, given))


def _check_key(key: str) -> None:
    field = field_of(key)
    extra = field.json_schema_extra if field else None
    if isinstance(extra, dict) and extra.get("runtime"):
        raise ConfigError(f"sweep.space.{key}: says how a run goes and changes no result; search something else.")


def _check_first(config: SweepConfig) -> None:
    """Try the first values, and find the one to blame if they are no run: one that is none by itself, else weights."""
    first = _complete(config, {})
    told = f"sweep.space: the first values of all parameters ({words(first)}) do not go together"
    try:
        _try(config, first, told)
    except ConfigError:
        others = {key: first[key] for key in config.sweep.ordered() if key in first and key != WEIGHTS}
        for key, value in others.items():
            _try(config, next(_conditions(config, key)) | {key: value}, _unusable(key, value))
        _try(config, others, told)
        _try(config, first, _unusable(WEIGHTS, first[WEIGHTS]))


def _unusable(key: str, value: Any) -> str:
    return f"sweep.space.{key}: {label(value)} cannot be used"


def _try(config: SweepConfig, point: Point, told: str) -> None:
    """Make the run of a point and resolve its recipe, as far as that needs no member.

    Raises:
        ConfigError: begins with ``told``.
    """
    run = trial_config(config, point, told)
    try:
        resolve(run.merge, _planned(run))
    except MergeError as error:
        raise ConfigError(f"{told}: {error}") from None


def _planned(run: RunConfig) -> list[MemberRef]:
    """The members as far as they are known before training."""
    return [MemberRef(bag.name, "", "", 1) for bag in run.bags.resolved()]


def _complete(config: SweepConfig, given: Point) -> Point:
    """A point with the given values and the first value of every other parameter that applies."""
    point: Point = {}
    for key in config.sweep.ordered():
        if applies(config.sweep.space[key], point):
            point[key] = given[key] if key in given else next(_ends(config, key, point))
    return as_listed(config, point)


def _ends(config: SweepConfig, key: str, point: Point) -> Iterator[Any]:
    """The values to try: options, ends of ranges, the fewest and most bags of every ratio, uneven weights."""
    parameter = config.sweep.space[key]
    if parameter.simplex is not None:
        members = member_count(config, point)
        weights = readable([2 * (index + 1) / (members * (members + 1)) for index in range(members)])
        yield dict.fromkeys(parameter.simplex.parts, weights) if parameter.simplex.layers else weights
    elif parameter.ratios is not None:
        for count in dict.fromkeys(parameter.ratios.members):
            yield from ([ratio] * count for ratio in parameter.ratios.grid)
    elif parameter.choice is not None:
        yield from parameter.options
    else:
        yield from parameter.bounds


def _conditions(config: SweepConfig, key: str) -> Iterator[Point]:
    """All values of what a parameter depends on, directly or not, with which it applies.

    Raises:
        ConfigError: there are none.
    """
    found = False
    for point in _ways(config, key):
        found = True
        yield point
    if not found:
        raise ConfigError(f"sweep.space.{key}.when: its conditions exclude one another, so it would never apply.")


def _ways(config: SweepConfig, key: str) -> Iterator[Point]:
    space = config.sweep.space
    when = space[key].when
    for values in product(*when.values()):
        own = {
            other: next(option for option in space[other].options if label(option) == label(value))
            for other, value in zip(when, values, strict=True)
        }
        for before in product(*(_ways(config, other) for other in own)):
            merged = dict(own)
            if all(
                label(merged.setdefault(other, value)) == label(value) for way in before for other, value in way.items()
            ):
                yield merged
