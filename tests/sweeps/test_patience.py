"""When a search has gone on for too long."""

from hypothesis import given
from hypothesis import strategies as st

from boom_ray.sweeps.patience import Patience


def _heard(*trials):
    patience = Patience()
    since = []
    for trial in trials:
        patience.hear(trial)
        since.append(patience.since)
    return since


def test_only_a_better_trial_starts_the_count_anew():
    assert _heard([(1.0,)], [(1.0,)], [(0.5,)], [(2.0,)], [(1.5,)]) == [0, 1, 2, 0, 1]


def test_failed_trials_count():
    assert _heard([], [], [(1.0,)], [], [(0.5,)]) == [1, 2, 0, 1, 2]


def test_a_higher_rung_is_better_and_lower_ones_no_longer_count():
    assert _heard([(5.0,)], [(5.0,), (1.0,)], [(9.0,)], [(1.0,), (1.1,)]) == [0, 0, 1, 0]


def test_with_two_objectives_a_trial_must_join_the_front():
    assert _heard([(1.0, 1.0)], [(0.0, 2.0)], [(0.5, 1.0)], [(0.0, 2.0)], [(0.5, 1.5)]) == [0, 0, 1, 2, 0]


def test_a_front_that_loses_members_still_covers_what_they_covered():
    assert _heard([(1.0, 1.0)], [(2.0, 2.0)], [(1.0, 1.0)]) == [0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_count_is_the_distance_to_the_last_trial_that_no_earlier_one_covers(values):
    fresh = [
        number
        for number, one in enumerate(values)
        if not any(other[0] >= one[0] and other[1] >= one[1] for other in values[:number])
    ]
    assert _heard(*[[one] for one in values])[-1] == len(values) - 1 - fresh[-1]
