"""optuna's samplers behind `OrderedSearcher`: the same trials in any order of ends, valid points, some learning."""

import os
import subprocess
import sys
import warnings

import pytest

from boom_ray.sweeps.mailbox import POINT
from boom_ray.sweeps.ordered import OrderedSearcher
from boom_ray.sweeps.searchers import make_searcher
from tests.sweeps.toy import play, sample, settings, value

BOTH = [{"name": "score"}, {"name": "small"}]
SEARCHERS = [(name, [{}]) for name in ("tpe", "random", "gp", "cmaes", "nsga2")] + [
    (name, BOTH) for name in ("tpe", "random", "nsga2")
]


@pytest.mark.parametrize(("name", "objectives"), SEARCHERS, ids=str)
def test_the_order_of_ends_and_later_trials_change_nothing(name, objectives):
    """14 trials are past the first ones, which are drawn at random."""
    given = {"searcher": name, "objectives": objectives}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = play(settings(trials=14, **given), order=1)[0]
    again = play(settings(trials=14, **given), order=2)[0]
    assert first == again
    if name != "gp":  # a second each
        assert play(settings(trials=11, **given), order=3)[0] == first[:11]
        assert play(settings(trials=14, seed=1, **given))[0] != first


@pytest.mark.parametrize("name", ["tpe", "cmaes", "nsga2"])
def test_failed_trials_are_no_obstacle(name):
    found = play(settings(searcher=name, trials=20), failing={0, 4, 11, 12, 13})[0]
    assert len(found) == 20


@pytest.mark.parametrize(("name", "objectives"), SEARCHERS, ids=str)
def test_points_are_what_the_space_says(name, objectives):
    for _, point in play(settings(searcher=name, objectives=objectives, trials=12, seed=3))[0]:
        assert ("density" in point) == (point["merge.method"] == "ties")
        assert 0 <= point["layers"]["0-5/out"] <= 1
        assert point["layers"]["rest"] == {}
        assert point["k"] in range(1, 6)
        assert 1e-5 <= point["rate"] <= 1e-1
        assert list(point)[:3] == ["merge.method", "layers", "k"]


@pytest.mark.parametrize("name", ["tpe", "cmaes", "nsga2"])
def test_they_learn(name):
    """The later half of the trials has a better mean than random ones, over five seeds."""

    def mean(searcher):
        found = [play(settings(searcher=searcher, trials=40, batch=4, seed=seed))[0][20:] for seed in range(5)]
        return sum(value(point, 2) for trials in found for _, point in trials) / 100

    assert mean(name) > mean("random") + 0.02


def test_a_batch_of_gp_spreads():
    """Trials without a result count in: the batch after the first ten trials is not four times the same point."""
    found = play(settings(searcher="gp", trials=16, batch=4))[0][12:]
    assert len({point["layers"]["0-5/out"] for _, point in found}) == 4


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_a_space_of_one_choice_or_one_number_will_do(name):
    def choice(suggest):
        return {"layers": {"0-5/out": suggest.choice("a", [0, 1, True, 0.5])}, "k": 1}

    def number(suggest):
        return {"layers": {"0-5/out": suggest.uniform("a", 0, 1)}, "k": 1}

    for draw in (choice, number):
        assert len(play(settings(searcher=name, trials=12), draw=draw)[0]) == 12


def test_options_that_python_takes_for_equal_are_told_apart():
    def draw(suggest):
        return {"layers": {"0-5/out": 0.0}, "k": 1, "seen": repr(suggest.choice("a", [1, True, 1.0]))}

    assert {point["seen"] for _, point in play(settings(trials=30), draw=draw)[0]} == {"1", "True", "1.0"}


def test_python_hashes_of_texts_change_nothing():
    code = "from tests.sweeps.toy import play, settings; print(play(settings(trials=24))[0])"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(play(settings(trials=24))[0])


def test_pruned_trials_teach_tpe():
    """Trials that ASHA stops early are bad ones for TPE, although their scores are higher than those of others."""
    letters = []
    search = settings(trials=60, batch=2, rungs=[8, None])
    searcher = OrderedSearcher(make_searcher(search, sample, None), search, letters.append)
    late = []
    for number in range(60):
        suggestion = searcher.suggest(str(number))
        point = suggestion[POINT]
        late.append(point["merge.method"])
        score = {"objective.score": 5.0, "resource": 1}
        if point["merge.method"] == "ties":
            searcher.on_trial_complete(str(number), score)
        else:
            searcher.on_trial_result(str(number), score)
            searcher.on_trial_complete(str(number), {"objective.score": 0.1, "resource": 3})
    assert late[30:].count("linear") > 20
