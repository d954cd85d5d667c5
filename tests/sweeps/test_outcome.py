from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import EvaluationError
from boom_ray.sweeps.cells import member_names, parameters, weight_parts
from boom_ray.sweeps.outcome import (
    Standing,
    best,
    best_so_far,
    chosen,
    knee,
    markdown,
    pareto,
    ranked,
    rows,
    statistics,
)
from boom_ray.sweeps.trials import Answer, Trial
from tests.sweeps.planted import WEIGHTS, answer, failed, sweep, trial

TWO = ("a", "b")
THREE = ("a", "b", "c")
VALUES = st.integers(0, 4).map(float)
CLOUDS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=25)


def cloud(points, names=TWO):
    return [trial(number, *point, names=names) for number, point in enumerate(points)]


def test_the_best_is_finished_and_the_first_of_equals():
    stopped = Trial(0, {}, (answer(0.9),), "stopped")
    trials = [trial(3, 0.5), trial(2, 0.5), trial(1, 0.4), stopped, failed(4, "bad", answer(0.8))]
    assert best(trials).number == 2
    assert chosen(trials, ("score",)).number == 2
    assert [one.number for one in ranked(trials, ("score",))] == [2, 3, 1]


def test_the_best_goes_by_the_last_rung():
    early = Trial(0, {}, (answer(0.9), answer(0.3)), "finished")
    late = Trial(1, {}, (answer(0.1), answer(0.4)), "finished")
    assert best([early, late]) is late


@given(st.lists(VALUES, min_size=1))
def test_one_objective_is_ranked_by_it_and_best_knee_and_chosen_agree(values):
    trials = [trial(number, value) for number, value in enumerate(values)]
    order = [(-one.objectives["score"], one.number) for one in ranked(list(reversed(trials)), ("score",))]
    assert order == sorted((-value, number) for number, value in enumerate(values))
    assert best(trials) is chosen(trials, ("score",)) is knee(trials)


def test_without_a_finished_trial_the_most_frequent_reason_is_said():
    trials = [failed(0, "One."), failed(1, "Two."), failed(2, "Two."), Trial(3, {}, (answer(0.1),), "stopped")]
    for ask in (lambda: best(trials), lambda: chosen(trials, TWO), lambda: knee(trials)):
        with pytest.raises(
            EvaluationError, match=r"None of the sweep's 4 trials finished; 3 failed, 2 of them .* Two\."
        ):
            ask()
    with pytest.raises(EvaluationError, match=r"sweep.trials"):
        best(trials[3:])


@given(CLOUDS)
def test_the_front_is_what_no_other_beats(points):
    def beats(one, other):
        return all(x >= y for x, y in zip(one, other, strict=True)) and one != other

    front = pareto(cloud(points, THREE), THREE)
    values = [tuple(one.objectives.values()) for one in front]
    assert values == sorted({one for one in points if not any(beats(other, one) for other in points)})
    assert [one.number for one in front] == [points.index(value) for value in values]


@given(CLOUDS)
def test_the_knee_is_the_nearest_to_the_best_of_all(points):
    trials = cloud(points, THREE)
    front = pareto(trials, THREE)
    if not front:
        return
    best_of, worst_of = ([pick(one.objectives[n] for one in front) for n in THREE] for pick in (max, min))

    def distance(one):
        scaled = [
            (high - one.objectives[name]) / (high - low)
            for name, high, low in zip(THREE, best_of, worst_of, strict=True)
            if high > low
        ]
        return math.hypot(*scaled)

    nearest = min(distance(one) for one in front)
    assert chosen(trials, THREE) is knee(front, THREE)
    assert knee(front, THREE).number == min(one.number for one in front if distance(one) < nearest + 1e-9)
    numbers = [one.number for one in front]
    assert {one.number for one in ranked(trials, THREE)[: len(front)]} == set(numbers)


def test_the_knee_is_between_the_ends():
    front = cloud([(0.0, 1.0), (0.25, 0.9), (0.75, 0.7), (1.0, 0.0)])
    assert knee(front, TWO).number == 2
    assert knee(cloud([(0.0, 1.0), (1.0, 0.0)]), TWO).number == 0
    assert knee(cloud([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]), TWO).number == 1


def test_the_running_best_counts_the_cost_of_all_trials():
    trials = [trial(2, 0.4, seconds=4.0), failed(0, "bad", answer(0.9, seconds=1.0)), trial(1, 0.5, seconds=2.0)]
    assert best_so_far(trials) == [
        Standing(0, 1, 1.5, None),
        Standing(1, 2, 3.5, 0.5),
        Standing(2, 3, 7.5, 0.5),
    ]
    assert best_so_far([]) == []


def test_statistics_count_by_status():
    stored = Trial(1, {}, (answer(0.1), Answer({}, {"score": 0.2}, seconds=2.0, stored=True)), "finished")
    assert statistics([stored, failed(0, "bad"), Trial(2, {}, (answer(0.1),), "stopped")]) == {
        "trials": 3, "finished": 1, "stopped": 1, "failed": 1, "answers": 4, "stored": 1, "seconds": 4.5,
    }  # fmt: skip


def test_every_parameter_has_its_column():
    space = {
        "merge.method": {"choice": ["linear", "ties"]},
        "merge.parameters.density": {"uniform": [0, 1], "when": {"merge.method": ["ties"]}},
        **WEIGHTS,
    }
    config = sweep(space, rungs=[8, None])
    trials = [
        Trial(1, {"merge.method": "ties", "merge.parameters.density": 0.5, "merge.weights": [0.25, 0.75]},
              (answer(0.5), answer(0.625, seconds=2.0)), "finished"),
        failed(0, "bad", point={"merge.method": "linear", "merge.weights": [1.0, 0.0]}),
    ]  # fmt: skip
    first, second = rows(trials, config)
    assert second == {
        "number": 1, "status": "finished", "rung": 1, "objective.score": 0.625, "score.retrieval": 0.525,
        "score.sts": 0.725, "merge.method": "ties", "merge.parameters.density": 0.5, "weight.bag-80": 0.25,
        "weight.bag-100": 0.75, "seconds": 3.0, "error": "",
    }  # fmt: skip
    assert list(first) == list(second)
    assert [first[key] for key in ("rung", "objective.score", "score.sts", "merge.parameters.density")] == [None] * 4
    assert (first["error"], first["weight.bag-80"]) == ("bad", 1.0)


def test_members_have_no_names_where_the_bags_change():
    config = sweep({"bags.ratios": {"ratios": {"grid": [0.2, 0.8]}}, **WEIGHTS})
    two = {"bags.ratios": [0.2, 0.8], "merge.weights": [0.5, 0.5]}
    three = {"bags.ratios": [0.2, 0.8, 0.8], "merge.weights": [0.5, 0.25, 0.25]}
    table = rows([trial(0, 0.1, point=two), trial(1, 0.1, point=three)], config)
    assert [[row[f"weight.{n}"] for n in (1, 2, 3)] for row in table] == [[0.5, 0.5, None], [0.5, 0.25, 0.25]]
    assert table[0]["bags.ratios"] == "[0.2,0.8]"
    assert member_names(config, 2) == ["1", "2"]
    assert member_names(sweep(WEIGHTS), 2) == ["bag-80", "bag-100"]


def test_parts_of_the_model_have_their_own_columns():
    config = sweep({"merge.weights": {"simplex": {"layers": ["0-5"]}}})
    point = {"merge.weights": {"0-5": [0.25, 0.75], "rest": [1.0, 0.0]}}
    assert parameters(point, config) == {
        "weight.0-5.bag-80": 0.25, "weight.0-5.bag-100": 0.75, "weight.rest.bag-80": 1.0, "weight.rest.bag-100": 0.0,
    }  # fmt: skip
    assert weight_parts(point, config) == point["merge.weights"]


def test_weights_that_are_a_choice_are_one_parameter():
    config = sweep({"merge.weights": {"choice": ["equal", [0.25, 0.75]]}})
    assert [parameters({"merge.weights": value}, config) for value in ("equal", [0.25, 0.75])] == [
        {"merge.weights": "equal"},
        {"merge.weights": "[0.25,0.75]"},
    ]
    assert weight_parts({"merge.weights": [0.25, 0.75]}, config) == {}


def test_the_table_shows_the_best_first():
    space = {"merge.parameters.scale": {"uniform": [0, 2]}, "merge.method": {"choice": ["a|b"]}, **WEIGHTS}
    points = [{"merge.weights": [w, 1 - w], "merge.parameters.scale": 1 + w} for w in (0.25, 0.5, 0.75)]
    points[2] |= {"merge.method": "a|b"}
    trials = [trial(n, 0.5 + n / 8, point=point, seconds=n) for n, point in enumerate(points)]
    lines = markdown([*trials, failed(3, "bad")], sweep(space), top=2).splitlines()
    cells = [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in lines]
    assert cells[0] == ["trial", "score", "merge.parameters.scale", "merge.method", "merge.weights", "seconds"]
    assert cells[2:] == [
        ["2", "**0.7500**", "1.75", "a¦b", "0.750 / 0.250", "2.0"],
        ["1", "0.6250", "1.5", "–", "0.500 / 0.500", "1.0"],
    ]
    assert markdown([failed(3, "bad")], sweep(space)) == ""


def test_the_order_of_trials_does_not_matter():
    config = sweep(WEIGHTS, names=TWO)
    trials = cloud([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.25, 0.5)])
    trials = [Trial(one.number, {"merge.weights": [0.5, 0.5]}, one.answers, one.status) for one in trials]
    for shuffled in itertools.permutations(trials):
        assert rows(shuffled, config) == rows(trials, config)
        assert pareto(shuffled, TWO) == pareto(trials, TWO)
        assert best_so_far(shuffled, "b") == best_so_far(trials, "b")
        assert markdown(shuffled, config) == markdown(trials, config)


def test_weights_that_a_merge_found_are_columns():
    found = {"weights": [0.25, 0.75], "scale": 1.5}
    learnt = Trial(0, {}, (Answer({}, {"score": 0.5}, found=found),), "finished")
    config = sweep({"seed": {"choice": [1, 2]}}, searcher="learned")
    first, second = rows([learnt, failed(1, "bad")], config)
    assert [first[name] for name in ("weight.bag-80", "weight.bag-100", "found.scale")] == [0.25, 0.75, 1.5]
    assert list(first) == list(second)
    assert second["weight.bag-80"] is None
    assert "| 0.250 / 0.750 |" in markdown([learnt], config)


def test_tables_say_who_is_on_the_front_where_there_are_several_objectives():
    trials = cloud([(0.0, 1.0), (0.5, 0.5), (0.25, 0.5), (1.0, 0.0)])
    trials.append(failed(4, "bad"))
    config = sweep(WEIGHTS, names=TWO)
    assert [row["front"] for row in rows(trials, config)] == ["yes", "yes", "", "yes", ""]
    lines = markdown(trials, config).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines]
    assert cells[0] == ["trial", "front", "a", "b"]
    assert [line[:2] for line in cells[2:]] == [["1", "yes"], ["0", "yes"], ["3", "yes"], ["2", ""]]
    alone = [trial(0, 0.5)]
    assert "front" not in rows(alone, sweep(WEIGHTS))[0]
    assert "front" not in markdown(alone, sweep(WEIGHTS))
