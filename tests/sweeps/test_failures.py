"""Failures that a repeated search hears again, so that it suggests the same trials."""

from __future__ import annotations

from pathlib import Path

from boom_ray.store import Store
from boom_ray.sweeps.failures import Failures
from boom_ray.sweeps.trials import Answer, Ask, Trial
from tests.sweeps.planted import answer, failed, trial
from tests.sweeps.toy import play, settings

POINT = {"merge.weights": [0.25, 0.75]}


def test_a_failure_is_found_by_another_run_of_the_same_search_only(tmp_path: Path) -> None:
    bad = failed(3, "The process died.", answer(0.5), point=POINT)
    for one in (bad, trial(4, 0.5, point=POINT), Trial(5, POINT, (answer(0.1),), "stopped")):
        Failures(Store(tmp_path), "one").keep(one)
    again = Failures(Store(tmp_path), "one")
    assert again.find(Ask(3, POINT, 1)) == Answer(error="The process died.", seconds=0.5, stored=True)
    others = [Ask(3, POINT, 0), Ask(2, POINT, 1), Ask(3, {}, 1), Ask(4, POINT, 0), Ask(5, POINT, 0)]
    assert [again.find(ask) for ask in others] == [None] * len(others)
    assert Failures(Store(tmp_path), "two").find(Ask(3, POINT, 1)) is None


def test_what_is_forgotten_is_tried_again_and_other_searches_keep_theirs(tmp_path: Path) -> None:
    one, two = Failures(Store(tmp_path), "one"), Failures(Store(tmp_path), "two")
    for search in (one, two):
        for number in (0, 1):
            search.keep(failed(number, "bad", point=POINT))
    assert one.forget() == 2
    assert one.find(Ask(0, POINT, 0)) is None
    assert two.find(Ask(1, POINT, 0)) is not None
    assert one.forget() == 0
    one.keep(failed(0, "worse", point=POINT))
    found = one.find(Ask(0, POINT, 0))
    assert found is not None
    assert found.error == "worse"


def test_a_search_whose_failure_was_mended_goes_on_as_it_was(tmp_path: Path) -> None:
    """TPE learns from a failure: with a score in its place later trials are others."""
    search = settings(trials=30)
    first, _, _ = play(search, failing={12})
    Failures(Store(tmp_path), "s").keep(failed(12, "no memory", point=first[12][1]))
    known = Failures(Store(tmp_path), "s")
    still = {number for number, point in first if known.find(Ask(number, point, 0)) is not None}
    assert still == {12}
    assert play(search, failing=still)[0] == first
    assert play(search)[0] != first
