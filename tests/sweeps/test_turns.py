"""Idle workers take what they have in memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from boom_ray.sweeps.turns import Turns

A, B, AB, C = frozenset("a"), frozenset("b"), frozenset("ab"), frozenset("c")


def test_a_worker_stays_with_what_it_has_and_newcomers_spread() -> None:
    turns = Turns([(AB, 1), (C, 2), (AB, 3), (AB, 4), (C, 5), (A, 6)])
    assert turns.take("x", frozenset()) == 1  # the largest group
    assert turns.take("y", frozenset()) == 2  # nobody is there
    assert turns.take("x", AB) == 3
    assert turns.take("y", C) == 5
    assert turns.take("y", C) == 6  # nobody is there, whereas x is at AB
    assert turns.take("x", AB) == 4
    assert turns.take("x", AB) is None and turns.take("y", A | C) is None


def test_a_part_of_what_is_held_needs_nothing_loaded() -> None:
    turns = Turns([(C, 1), (C, 2), (B, 3)])
    assert turns.take("x", AB) == 3


@given(
    st.lists(st.tuples(st.frozensets(st.sampled_from("abcd"), min_size=1), st.integers())),
    st.lists(st.tuples(st.integers(0, 3), st.frozensets(st.sampled_from("abcd")))),
)
def test_every_job_is_taken_once(
    jobs: list[tuple[frozenset[str], int]], askers: list[tuple[int, frozenset[str]]]
) -> None:
    turns = Turns(jobs)
    taken = [turns.take(worker, held) for worker, held in askers]
    while (job := turns.take("last", frozenset())) is not None:
        taken.append(job)
    assert Counter(job for job in taken if job is not None) == Counter(job for _, job in jobs)
