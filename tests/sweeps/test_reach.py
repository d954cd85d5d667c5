from __future__ import annotations

import math

import pytest

from boom_ray.sweeps.reach import continuous, extremes, grid, points, reachable
from tests.sweeps.spaces import BAGS, METHODS, MIXED, sweep

CURVE = {"simplex": {"steps": 2}}


def test_a_grid_is_every_combination_that_applies_once():
    config = sweep(
        {
            "merge.method": METHODS,
            "merge.parameters.density": {"choice": [0.2, 0.5], "when": {"merge.method": "ties"}},
            "training.epochs": {"integer": [1, 2]},
        },
        "grid",
    )
    assert list(grid(config)) == [
        {"merge.method": "multislerp", "training.epochs": 1},
        {"merge.method": "task_arithmetic", "training.epochs": 1},
        {"merge.method": "ties", "merge.parameters.density": 0.2, "training.epochs": 1},
        {"merge.method": "ties", "merge.parameters.density": 0.5, "training.epochs": 1},
        {"merge.method": "multislerp", "training.epochs": 2},
        {"merge.method": "task_arithmetic", "training.epochs": 2},
        {"merge.method": "ties", "merge.parameters.density": 0.2, "training.epochs": 2},
        {"merge.method": "ties", "merge.parameters.density": 0.5, "training.epochs": 2},
    ]


def test_weights_of_a_grid_are_a_lattice_of_as_many_as_there_are_members():
    config = sweep({"bags": BAGS, "merge.weights": CURVE}, "grid")
    found = list(grid(config))
    sizes = [len(point["merge.weights"]) for point in found]
    assert sizes == [2] * 3 + [3] * 6 + [2] * 3
    assert [point["merge.weights"] for point in found[:3]] == [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]


def test_bags_that_do_not_go_together_are_one_point_of_a_grid():
    found = list(grid(sweep(MIXED | {"merge.weights": CURVE}, "grid")))
    assert len(found) == 3 * 3 + 1
    bad = {"bags": "rest", "bags.members.0.replacement": "poisson"}
    assert [point for point in found if "merge.weights" not in point] == [bad]


def test_weights_of_groups_of_a_grid_are_all_combinations():
    config = sweep({"merge.weights": {"simplex": {"steps": 1, "layers": ["0-5"]}}}, "grid")
    assert [point["merge.weights"] for point in grid(config)] == [
        {"0-5": [0.0, 1.0], "rest": [0.0, 1.0]},
        {"0-5": [0.0, 1.0], "rest": [1.0, 0.0]},
        {"0-5": [1.0, 0.0], "rest": [0.0, 1.0]},
        {"0-5": [1.0, 0.0], "rest": [1.0, 0.0]},
    ]


def test_only_searchers_that_do_not_suggest_have_points():
    assert points(sweep({"bags": BAGS})) is None
    assert points(sweep({"bags": BAGS}, "random")) is None
    for searcher in ("grid", "learned"):
        found = points(sweep({"bags": BAGS}, searcher))
        assert found is not None
        assert list(found) == [{"bags": "two"}, {"bags": "three"}, {"bags": "halves"}]


def test_sets_of_members_that_can_be_reached():
    space = {
        "merge.weights": {"simplex": {}},
        "merge.method": METHODS,
        "merge.parameters.scale": {"uniform": [0.5, 1.5], "when": {"merge.method": "ties"}},
        "bags": BAGS,
        "seed": {"choice": [0, 1], "when": {"bags": "three"}},
    }
    assert reachable(sweep(space)) == [
        {"bags": "two"},
        {"bags": "three", "seed": 0},
        {"bags": "three", "seed": 1},
        {"bags": "halves"},
    ]


def test_conditions_on_the_merge_count_as_far_as_members_depend_on_them():
    space = {
        "merge.method": METHODS,
        "merge.merge_dtype": {"choice": ["float32", "float64"]},
        "training.ema": {"choice": [0.9, 0.99], "when": {"merge.method": ["ties", "task_arithmetic"]}},
    }
    assert reachable(sweep(space)) == [{}, {"training.ema": 0.9}, {"training.ema": 0.99}]


def test_a_space_of_merges_alone_has_one_set_of_members():
    assert reachable(sweep({"merge.weights": {"simplex": {}}})) == [{}]


@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_continuous_training_reaches_no_list(kind):
    assert reachable(sweep({"training.learning_rate": {kind: [1e-5, 1e-4]}})) is None


def test_the_ends_of_all_ranges_stand_for_what_is_not_listed():
    space = {
        "merge.parameters.scale": {"uniform": [0.5, 1.5]},
        "training.learning_rate": {"log_uniform": [1e-5, 1e-4]},
        "training.epochs": {"integer": [1, 5]},
        "bags.ratios": {"ratios": {"grid": [0.4, 0.8, 0.6], "members": [2, 4]}},
    }
    config = sweep(space)
    assert continuous(config) == ["training.learning_rate"]
    assert extremes(config) == [
        {"training.learning_rate": rate, "training.epochs": epochs, "bags.ratios": [0.8, 0.8, 0.8, 0.8]}
        for rate in (1e-5, 1e-4)
        for epochs in (1, 5)
    ]
    assert extremes(sweep({"seed": {"integer": [1, 10**9]}})) == [{"seed": 1}, {"seed": 10**9}]
    assert extremes(sweep({"seed": {"choice": list(range(10_001))}})) is None


def test_free_ratios_reach_every_multiset_once():
    found = reachable(sweep({"bags.ratios": {"ratios": {"grid": [0.2, 0.4, 0.6, 0.8, 1.0], "members": [1, 4]}}}))
    assert found is not None
    assert len(found) == sum(math.comb(5 + count - 1, count) for count in range(1, 5))
    assert {"bags.ratios": [1.0, 0.6, 0.6]} in found


def test_more_than_ten_thousand_sets_are_not_listed():
    assert reachable(sweep({"seed": {"integer": [1, 10**9]}})) is None
    found = reachable(sweep({"seed": {"integer": [1, 10_000]}}))
    assert found is not None
    assert len(found) == 10_000
