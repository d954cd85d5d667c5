from __future__ import annotations

import numpy as np
import pytest

from boom_ray.sweeps.importance import importance
from boom_ray.sweeps.trials import Trial
from tests.sweeps.planted import WEIGHTS, answer, failed, sweep, trial

NUMBERS = {key: {"uniform": [0, 1]} for key in ("merge.parameters.a", "merge.parameters.b", "merge.parameters.c")}


def planted(space, score, count=60, ratios=(0.8, 1.0), weights=None):
    """Trials at random points of numbers, choices and weights, scored by a function of the point."""
    random = np.random.default_rng(1)
    trials = []
    for number in range(count):
        point = {}
        for key, kind in space.items():
            if not all(point.get(other) in values for other, values in kind.get("when", {}).items()):
                continue
            if "choice" in kind:
                point[key] = kind["choice"][random.integers(len(kind["choice"]))]
            elif "simplex" in kind:
                point[key] = random.dirichlet(np.ones(weights or len(ratios))).tolist()
            elif "ratios" in kind:
                point[key] = random.choice(kind["ratios"]["grid"], random.integers(2, 5)).tolist()
            else:
                point[key] = float(random.uniform(*kind["uniform"]))
        trials.append(trial(number, float(score(point)), point=point))
    return trials


def test_the_parameter_that_decides_comes_first_and_one_that_does_nothing_is_near_zero():
    trials = planted(NUMBERS, lambda p: np.sin(3 * p["merge.parameters.b"]) + 0.2 * p["merge.parameters.a"])
    found = importance(trials, sweep(NUMBERS))
    assert list(found.shares) == ["merge.parameters.b", "merge.parameters.a", "merge.parameters.c"]
    assert found.shares["merge.parameters.b"] > 0.8 and found.shares["merge.parameters.c"] < 0.02
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.explained > 0.7 and (found.rung, found.trials) == (0, 60)


def test_parameters_that_do_the_same_share_alike():
    trials = planted(NUMBERS, lambda p: p["merge.parameters.a"] + p["merge.parameters.b"], count=300)
    shares = importance(trials, sweep(NUMBERS)).shares
    assert list(shares.values()) == pytest.approx([0.5, 0.5, 0.0], abs=0.08)
    assert list(shares)[2] == "merge.parameters.c"


def test_a_choice_counts_as_one_and_what_it_switches_on_counts_for_itself():
    space = {
        "merge.method": {"choice": ["linear", "slerp", "ties"]},
        "merge.parameters.a": {"uniform": [0, 1], "when": {"merge.method": ["ties"]}},
    }
    config = sweep(space)
    by_method = importance(planted(space, lambda p: {"linear": 0, "slerp": 1, "ties": 3}[p["merge.method"]]), config)
    assert by_method.shares["merge.method"] > 0.99
    by_both = importance(planted(space, lambda p: p.get("merge.parameters.a", 0.5)), config)
    assert by_both.shares["merge.parameters.a"] > 0.8


@pytest.mark.parametrize("value", ["null", "list"])
def test_choices_may_be_any_json(value):
    other = {"null": None, "list": [1, {"a": 2}]}[value]
    space = {"training.warmup": {"choice": [0.5, other]}, **NUMBERS}
    found = importance(planted(space, lambda p: p["training.warmup"] == 0.5), sweep(space))
    assert found.shares["training.warmup"] > 0.99


def test_every_weight_counts_but_the_second_of_two():
    def score(p):
        return -((p["merge.weights"][0] - 0.3) ** 2)

    two = importance(planted(WEIGHTS, score), sweep(WEIGHTS))
    assert two.shares == {"weight.bag-80": 1.0}
    ratios = (0.4, 0.8, 1.0)
    three = importance(planted(WEIGHTS, score, ratios=ratios), sweep(WEIGHTS, ratios=ratios))
    assert next(iter(three.shares)) == "weight.bag-40" and three.shares["weight.bag-40"] > 0.7
    assert set(three.shares) == {"weight.bag-40", "weight.bag-80", "weight.bag-100"}


def test_numbers_of_bags_count_as_one_with_their_ratios():
    space = {"bags.ratios": {"ratios": {"grid": [0.2, 0.4, 0.8]}}, "merge.parameters.a": {"uniform": [0, 1]}}
    for score in (lambda p: len(p["bags.ratios"]), lambda p: p["bags.ratios"][1]):
        found = importance(planted(space, score), sweep(space))
        assert found.shares["bags.ratios"] > 0.98


def test_weights_of_members_that_only_some_trials_have():
    space = {"bags.ratios": {"ratios": {"grid": [0.2, 0.8]}}, **WEIGHTS}
    trials = planted(space, lambda p: 0)
    trials = [
        trial(one.number, float(len(ratios)), point=one.point | {"merge.weights": [1 / len(ratios)] * len(ratios)})
        for one in trials
        for ratios in [one.point["bags.ratios"]]
    ]
    found = importance(trials, sweep(space))
    assert list(found.shares) == ["bags.ratios", "weight.1", "weight.2", "weight.3", "weight.4"]
    assert found.explained > 0.9


def test_one_merge_that_collapsed_hides_nothing():
    trials = planted(NUMBERS, lambda p: p["merge.parameters.b"])
    trials[5] = trial(5, -1000.0, point=trials[5].point)
    assert importance(trials, sweep(NUMBERS)).shares["merge.parameters.b"] > 0.9


def test_nothing_is_said_about_few_trials_equal_scores_or_noise():
    def score(p):
        return p["merge.parameters.a"]

    config = sweep(NUMBERS)
    assert importance([], config) is None
    assert importance(planted(NUMBERS, score, count=9), config) is None
    assert importance(planted(NUMBERS, score, count=10), config) is not None
    assert importance(planted(NUMBERS, lambda p: 0.5), config) is None
    noise = iter(np.random.default_rng(0).normal(size=60))
    assert importance(planted(NUMBERS, lambda p: next(noise)), config) is None
    assert importance([trial(n, n / 10) for n in range(10)], config) is None


def test_one_rung_is_looked_at_the_highest_with_enough_trials():
    def climb(number, one, point):
        """A quarter of the trials reach the last rung, where the scores are noise."""
        first = answer(one.answers[0].objectives["score"])
        answers = (first, answer((number * 7 % 5) / 5)) if number % 4 == 0 else (first,)
        return Trial(number, point, answers, "finished" if len(answers) == 2 else "stopped")

    config = sweep(NUMBERS, rungs=[8, None])
    full = [climb(one.number, one, one.point) for one in planted(NUMBERS, lambda p: p["merge.parameters.c"], count=36)]
    found = importance([*full, failed(36, "bad", point=full[0].point)], config)
    assert (found.rung, found.trials) == (0, 36)
    assert next(iter(found.shares)) == "merge.parameters.c"
    top = [Trial(one.number, one.point, (answer(0.5), *one.answers), "finished") for one in full]
    assert importance(top, config).rung == 1


def test_the_same_trials_in_any_order_give_the_same_numbers():
    trials, config = planted(NUMBERS, lambda p: p["merge.parameters.a"], count=20), sweep(NUMBERS)
    assert importance(trials, config) == importance(list(reversed(trials)), config)
    assert importance(trials, config) != importance(trials, config, seed=1)


def test_each_objective_has_its_own():
    names = ("x", "y")
    trials = [
        trial(
            one.number, one.point["merge.parameters.a"], -one.point["merge.parameters.c"], point=one.point, names=names
        )
        for one in planted(NUMBERS, lambda p: 0, count=30)
    ]
    config = sweep(NUMBERS, names=names)
    firsts = [next(iter(importance(trials, config, name).shares)) for name in (None, *names)]
    assert firsts == ["merge.parameters.a", "merge.parameters.a", "merge.parameters.c"]
