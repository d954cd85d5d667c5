"""A small space with a known best point, and Tune's part played without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from boom_ray.config import SearchConfig
from boom_ray.sweeps.mailbox import NUMBER, POINT, RESOURCE, Letter, metric
from boom_ray.sweeps.ordered import OrderedSearcher
from boom_ray.sweeps.searchers import make_searcher
from boom_ray.sweeps.space import Suggest
from boom_ray.sweeps.trials import Answer, Ask, Point


def settings(**given: Any) -> SearchConfig:
    """A search whose own space is not looked at."""
    return SearchConfig(**{"space": {"seed": {"integer": [0, 9]}}, "trials": 6, "batch": 3, **given})


def sample(suggest: Suggest) -> Point:
    """A choice, numbers of all kinds, one that depends on the choice, and a section with names that Tune splits at."""
    method = suggest.choice("merge.method", ["linear", "ties"])
    point: Point = {"merge.method": method, "layers": {"0-5/out": suggest.uniform("layers/0-5", 0, 1), "rest": {}}}
    point |= {"k": suggest.integer("k", 1, 5), "rate": suggest.uniform("rate", 1e-5, 1e-1, log=True), "list": [1, None]}
    if method == "ties":
        point["density"] = suggest.uniform("density", 0.1, 1.0)
    return point


def value(point: Point, rung: int = 0) -> float:
    """Best, 0.1, with ties at 0.3 and k = 1; another order at every rung."""
    distance = abs(point["layers"]["0-5/out"] - 0.3) + 0.02 * (point["k"] - 1)
    noise = 0.3 * random.Random(f"{point} {rung}").random() if rung < 2 else 0.0
    return (0.1 if "density" in point else 0.0) - distance + noise


def answer(ask: Ask) -> Answer:
    """The scores of an ask."""
    return Answer({"task": 1.0}, {"score": value(ask.point, ask.rung), "small": -float(ask.point["k"])})


def play(
    search: SearchConfig,
    points: Iterator[Point] | None = None,
    order: int = 0,
    failing: Collection[int] = (),
    dying: Collection[int] = (),
    draw: Callable[[Suggest], Point] = sample,
) -> tuple[list[tuple[int, Point]], list[Letter], OrderedSearcher]:
    """What `OrderedSearcher` suggests if the trials of a batch end in a random order; each has one rung.

    Args:
        search: the settings.
        points: for searchers that go through a list.
        order: seed of the order.
        failing: numbers of trials with an error as answer.
        dying: numbers of trials whose process dies once.
        draw: a point of the space.
    """
    letters: list[Letter] = []
    searcher = OrderedSearcher(make_searcher(search, draw, points), search, letters.append)
    left, shuffle, suggested, count = set(dying), random.Random(order), [], 0
    while True:
        running: dict[str, dict[str, Any]] = {}
        while isinstance(suggestion := searcher.suggest(str(count := count + 1)), dict):
            running[str(count)] = suggestion
        if not running:
            return sorted(suggested, key=lambda one: one[0]), letters, searcher
        for name in shuffle.sample(list(running), len(running)):
            number, point = running[name][NUMBER], running[name][POINT]
            if number in left:
                left.remove(number)
                searcher.on_trial_complete(name, error=True)
                continue
            suggested.append((number, point))
            if number in failing:
                searcher.refuse(number)
                searcher.on_trial_complete(name, error=True)
            else:
                searcher.on_trial_complete(name, results([answer(Ask(number, point, 0))], search)[0])


def results(answers: Sequence[Answer], search: SearchConfig) -> list[dict[str, float]]:
    """What a trial reports to Tune."""
    return [
        {metric(one.name): found.objectives[one.name] for one in search.objectives}
        | {RESOURCE: search.reduction**rung, "trial_id": rung}
        for rung, found in enumerate(answers)
    ]
