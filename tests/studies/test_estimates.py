from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from boom_ray.studies.estimates import (
    BASE,
    Estimate,
    count_text,
    difference_of,
    level_of,
    levels,
    shared,
    student_interval,
    tasks_where,
    wheres,
)
from boom_ray.studies.results import ArmResult, Cost, StudyResult
from tests.studies.planted import scores, study

VALUES = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=2, max_size=6)


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_is_that_of_the_one_sample_t_test(values, level):
    found = student_interval(values, level)
    if len(set(values)) == 1:
        assert found is None
    else:
        wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
        assert found == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_the_interval_of_two_seeds_is_that_of_the_table():
    # the mean is 2, the error 1, and t with one degree of freedom 12.706
    assert student_interval([1.0, 3.0]) == pytest.approx((-10.706, 14.706), abs=1e-3)


def test_one_value_and_equal_values_have_no_interval():
    assert student_interval([0.3]) is None
    assert student_interval([0.1 + 0.2, 0.3]) is None  # 4e-17 apart: rounding
    one = Estimate.of({3: 0.5})
    assert (one.mean, one.std, one.interval) == (0.5, None, None)
    assert Estimate.of({0: 0.25, 1: 0.75}).std == pytest.approx(np.sqrt(0.125))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5))
def test_differences_are_paired_by_seed(pairs):
    one = study({"bls": [[old] * 3 for old, _ in pairs], "new": [[new] * 3 for _, new in pairs]})
    found = difference_of(one, "new", "bls", list(one.tasks))
    old, new = np.array(pairs).T
    assert list(found.by_seed.values()) == pytest.approx(list(new - old), abs=1e-12)
    if found.interval is not None:
        wanted = stats.ttest_rel(new, old).confidence_interval(0.95)
        assert found.interval == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    back = difference_of(one, "bls", "new", list(one.tasks))
    assert back.mean == pytest.approx(-found.mean, abs=1e-15)


def test_only_shared_seeds_and_tasks_are_paired():
    runs = [
        ArmResult("bls", 0, scores([0.1, 0.2, 0.3, 0.4]), Cost(1, 1, 1)),
        ArmResult("bls", 1, scores([0.9, 0.9, 0.9, 0.9]), Cost(1, 1, 1)),
        ArmResult("new", 2, scores([0.9, 0.9, 0.9, 0.9]), Cost(1, 1, 1)),
        ArmResult("new", 0, scores([0.3, 0.5, 0.3], in_domain=2), Cost(1, 1, 1)),
    ]
    one = StudyResult("s", {"bls": "", "new": "", "gone": ""}, (0, 1, 2), "bls", tuple(runs))
    assert shared(one, "new", "bls") == ((0,), ("t0", "t1", "t2"))
    assert difference_of(one, "new", "bls", ["t0", "t1", "t3"]).by_seed == {0: pytest.approx(0.25)}
    assert difference_of(one, "new", "bls", ["t3"]) is None
    assert difference_of(one, "gone", "bls", ["t0"]) is None
    assert shared(one, "gone", "nobody") == ((), ())


def test_a_mean_over_fewer_tasks_than_the_others_is_none():
    one = study({"bls": [[0.2, 0.4], [0.4, 0.6]], "new": [[0.5, 0.7], [0.5]], "gone": []}, in_domain=1, base=[0.1])
    assert level_of(one, "bls", ["t0", "t1"]).by_seed == {0: pytest.approx(0.3), 1: pytest.approx(0.5)}
    found = levels(one, ["t0", "t1"])
    assert list(found) == [BASE, "bls", "new", "gone"]
    assert [name for name, level in found.items() if level is None] == [BASE, "new", "gone"]
    assert levels(one, ["t0"])[BASE] == Estimate({}, 0.1, None, None)
    assert levels(one, [])["bls"] is None


def test_sets_of_tasks_are_those_that_have_some():
    one = study({"bls": [[0.2, 0.4, 0.6]]}, in_domain=2)
    assert wheres(one) == ("in_domain", "out_of_domain", "all")
    assert tasks_where(one, "in_domain") == ("t0", "t1")
    assert tasks_where(one, "out_of_domain", ["t1", "t2"]) == ("t2",)
    assert tasks_where(one, "all") == ("t0", "t1", "t2")
    assert wheres(study({"bls": [[0.2, 0.4]]}, in_domain=2)) == ("in_domain",)


def test_numbers_of_things_are_in_the_plural_unless_one():
    assert [count_text(number, "seed") for number in (0, 1, 2, 0.5)] == ["0 seeds", "1 seed", "2 seeds", "0.5 seeds"]
