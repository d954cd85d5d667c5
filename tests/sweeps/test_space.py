from __future__ import annotations

from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import ConfigError
from boom_ray.hashing import canonical_json
from boom_ray.sweeps.check import check_space
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.reach import reachable
from boom_ray.sweeps.space import describe, sample
from tests.sweeps.spaces import BAGS, METHODS, MIXED, Random, sweep

seeds = st.integers(0, 2**32)
SPACE = {
    "merge.weights": {"simplex": {}},
    "merge.parameters.density": {"uniform": [0.1, 0.9], "when": {"merge.method": "ties"}},
    "merge.parameters.normalize": {"choice": [True, False], "when": {"merge.method": "ties"}},
    "merge.parameters.scale": {"uniform": [0.5, 1.5], "when": {"merge.method": ["task_arithmetic", "ties"]}},
    "merge.method": METHODS,
    "training.learning_rate": {"log_uniform": [1e-5, 1e-3]},
    "training.epochs": {"integer": [1, 3]},
    "training.max_steps": {"choice": [None, 100]},
    "seed": {"choice": [0, 1]},
    "bags": BAGS,
}


class Fixed:
    """Gives what it is told by name, the lowest of everything else; keeps the names in the order asked."""

    def __init__(self, **values):
        self.values, self.asked = values, []

    def _give(self, name, otherwise):
        self.asked.append(name)
        return self.values.get(name, otherwise)

    def choice(self, name, options):
        return self._give(name, options[0])

    def uniform(self, name, low, high, log=False):
        return self._give(name, low)

    def integer(self, name, low, high):
        return self._give(name, low)


@given(seeds)
def test_every_point_is_a_valid_run_of_json_values_in_the_order_of_the_space(seed):
    config = sweep(SPACE)
    point = sample(config, Random(seed))
    assert list(point) == [key for key in SPACE if key in point]
    assert canonical_json(point)
    run = trial_config(config, point)
    assert run.merge.method == point["merge.method"]
    assert run.training.learning_rate == point["training.learning_rate"]
    assert run.training.max_steps == point["training.max_steps"]
    assert list(run.merge.weights) == point["merge.weights"]
    assert len(point["merge.weights"]) == len(run.bags.resolved()) == (3 if point["bags"] == "three" else 2)
    assert sum(Decimal(repr(weight)) for weight in point["merge.weights"]) == 1


@given(seeds)
def test_what_does_not_apply_is_absent(seed):
    point = sample(sweep(SPACE), Random(seed))
    method = point["merge.method"]
    assert ("merge.parameters.density" in point) == (method == "ties")
    assert ("merge.parameters.scale" in point) == (method != "multislerp")


@given(seeds)
def test_a_searcher_s_numbers_have_six_digits_and_stay_within_bounds(seed):
    config = sweep({"training.learning_rate": {"uniform": [1.23456789e-5, 1.23456799e-5]}})
    rate = sample(config, Random(seed))["training.learning_rate"]
    assert 1.23456789e-5 <= rate <= 1.23456799e-5
    config = sweep({"training.learning_rate": {"log_uniform": [1e-5, 1e-3]}})
    rate = sample(config, Random(seed))["training.learning_rate"]
    assert rate == float(f"{rate:.6g}")


def test_members_are_chosen_before_merges_and_weights_last():
    suggest = Fixed(bags="three", **{"merge.method": "ties"})
    sample(sweep(SPACE), suggest)
    assert suggest.asked == [
        "training.learning_rate", "training.epochs", "training.max_steps", "seed", "bags",
        "merge.method", "merge.parameters.density", "merge.parameters.normalize", "merge.parameters.scale",
        "merge.weights.M3.0", "merge.weights.M3.1",
    ]  # fmt: skip


def test_logarithms_are_asked_for_and_names_always_mean_the_same():
    config = sweep(SPACE | {"bags": {"choice": [{"ratios": [0.5]}, {"ratios": [0.5, 1.0]}]}})
    suggest = Random(1)
    for _ in range(60):
        sample(config, suggest)
    assert suggest.ranges["training.learning_rate"] == (1e-5, 1e-3, True)
    assert suggest.ranges["merge.parameters.density"] == (0.1, 0.9, False)
    assert suggest.ranges["merge.weights.M2.0"] == (0.0, 1.0, False)
    assert suggest.ranges["bags"] == ('{"ratios":[0.5]}', '{"ratios":[0.5,1.0]}')
    assert suggest.ranges["training.max_steps"] == ("null", "100")


def test_unnamed_lists_come_back_as_themselves():
    config = sweep({"bags.ratios": {"choice": [[0.8, 1.0], [0.6, 0.6, 0.6]]}})
    point = sample(config, Fixed(**{"bags.ratios": "[0.6,0.6,0.6]"}))
    assert point == {"bags.ratios": [0.6, 0.6, 0.6]}
    assert trial_config(config, point).bags.ratios == (0.6, 0.6, 0.6)


@given(seeds)
def test_free_ratios_never_rise_and_come_from_the_grid(seed):
    config = sweep({"bags.ratios": {"ratios": {"grid": [0.2, 1.0, 0.6], "members": [2, 4]}}})
    ratios = sample(config, Random(seed))["bags.ratios"]
    assert 2 <= len(ratios) <= 4
    assert ratios == sorted(ratios, reverse=True)
    assert set(ratios) <= {0.2, 0.6, 1.0}


def test_every_set_of_free_ratios_is_drawn_by_one_way():
    config = sweep({"bags.ratios": {"ratios": {"grid": [0.2, 0.6, 1.0], "members": [2, 3]}}})
    suggest = Random(0)
    seen = Counter(tuple(sample(config, suggest)["bags.ratios"]) for _ in range(2000))
    assert set(seen) == {tuple(point["bags.ratios"]) for point in reachable(config)}
    assert len(seen) == 6 + 10
    assert suggest.ranges == {
        "bags.ratios.count": (2, 3),
        "bags.ratios.0": (1.0, 0.6, 0.2),
        "bags.ratios.1.from-1": (1.0, 0.6, 0.2),
        "bags.ratios.1.from-0.6": (0.6, 0.2),
        "bags.ratios.2.from-1": (1.0, 0.6, 0.2),
        "bags.ratios.2.from-0.6": (0.6, 0.2),
    }


def test_groups_of_layers_have_weights_of_their_own():
    config = sweep({"merge.weights": {"simplex": {"layers": [0, "1-2", "embeddings.*"]}}})
    suggest = Random(5)
    weights = sample(config, suggest)["merge.weights"]
    assert list(weights) == ["0", "1-2", "embeddings.*", "rest"]
    assert len({tuple(one) for one in weights.values()}) == 4
    assert list(suggest.ranges) == [f"merge.weights.{part}.M2.0" for part in weights]


def test_drawn_weights_are_uniform_on_the_simplex():
    config = sweep({"merge.weights": {"simplex": {}}}, bags={"ratios": [0.6, 0.6, 0.6]})
    suggest = Random(11)
    weights = np.array([sample(config, suggest)["merge.weights"] for _ in range(1500)])
    error = 6 * np.sqrt(1 / 18 / 1500)
    assert np.abs(weights.mean(axis=0) - 1 / 3).max() < error
    assert weights.var(axis=0) == pytest.approx(np.full(3, 1 / 18), rel=0.25)


def test_a_single_member_weighs_one():
    config = sweep({"merge.weights": {"simplex": {}}}, bags={"ratios": [0.6]})
    assert sample(config, Random(0)) == {"merge.weights": [1.0]}


def test_bags_that_do_not_go_together_have_no_weights_and_fail_by_themselves():
    config = sweep(MIXED | {"merge.weights": {"simplex": {}}})
    check_space(config)
    bad = {"bags": "rest", "bags.members.0.replacement": "poisson"}
    suggest = Random(0)
    drawn = [sample(config, suggest) for _ in range(40)]
    without = [point for point in drawn if "merge.weights" not in point]
    assert 0 < len(without) < 40
    assert without == [bad] * len(without)
    with pytest.raises(ConfigError, match=r"The trial with bags=rest, .*poisson:\n  bags: bag y: x must be a ratio"):
        trial_config(config, bad)


def test_the_table_says_how_and_when():
    rows = describe(sweep(SPACE | {"merge.weights": {"simplex": {"layers": ["0-2"], "steps": 4}}}))
    assert [row["key"] for row in rows] == list(SPACE)
    by_key = {row["key"]: (row["search"], row["when"]) for row in rows}
    assert by_key["merge.weights"] == (
        "one weight per member, sum 1, multiples of 1/4, each of 0-2, rest by itself",
        "",
    )
    assert by_key["merge.parameters.scale"] == ("0.5 to 1.5", "merge.method = task_arithmetic or ties")
    assert by_key["training.learning_rate"] == ("1e-05 to 0.001, all magnitudes alike", "")
    assert by_key["training.epochs"] == ("1 to 3, integers", "")
    assert by_key["training.max_steps"] == ("null or 100", "")
    assert by_key["bags"] == ("two or three or halves", "")
    free = describe(sweep({"bags.ratios": {"ratios": {"grid": [0.5, 1.0]}}}))
    assert free == [{"key": "bags.ratios", "search": "2 to 4 bags, ratios 0.5, 1", "when": ""}]
