"""The order of a search, with Tune's part played by `tests.sweeps.toy`."""

import pickle

import pytest
from ray.tune.search import Searcher

from boom_ray.errors import EvaluationError
from boom_ray.sweeps.mailbox import POINT, RESOURCE, Batch, Closed, Ended, metric
from boom_ray.sweeps.ordered import RESTARTS, OrderedSearcher
from tests.sweeps.toy import play, settings, value

SCORE = metric("score")


class Recorder(Searcher):
    """An inner searcher that writes down what it hears."""

    def __init__(self):
        super().__init__()
        self.told = []

    def suggest(self, trial_id):
        return {POINT: {"seed": int(trial_id)}}

    def on_trial_result(self, trial_id, result):
        self.told.append((trial_id, result["training_iteration"], result[SCORE]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told.append((trial_id, result and result[SCORE], error))


def _ordered(**given):
    letters = []
    inner = Recorder()
    return OrderedSearcher(inner, settings(**given), letters.append), inner, letters


def _result(score, resource=1):
    return {SCORE: score, RESOURCE: resource}


def test_a_batch_waits_for_the_one_before_and_is_told_in_order():
    searcher, inner, letters = _ordered()
    assert [searcher.suggest(name)["trial"] for name in "abc"] == [0, 1, 2]
    assert searcher.suggest("d") is None
    for name, score in (("c", 0.3), ("a", 0.1)):
        searcher.on_trial_complete(name, _result(score))
        assert searcher.suggest("d") is None
    assert inner.told == []
    searcher.refuse(1)
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d")["trial"] == 3
    assert inner.told == [("0", 1, 0.1), ("0", 0.1, False), ("1", None, True), ("2", 1, 0.3), ("2", 0.3, False)]
    assert letters == [
        Batch({number: {"seed": number} for number in (0, 1, 2)}),
        Ended(2, "finished"),
        Ended(0, "finished"),
        Ended(1, "failed"),
        Batch({number: {"seed": number} for number in (3, 4, 5)}),
    ]


def test_a_stopped_trial_is_told_rung_by_rung_and_has_no_value():
    """Tune tells of the last result of a stopped trial with its end only, of a finished one twice."""
    searcher, inner, letters = _ordered(batch=2, rungs=[8, 16, None], reduction=2)
    for name in "ab":
        searcher.suggest(name)
    searcher.on_trial_result("a", _result(0.5, 1))
    searcher.on_trial_complete("a", _result(0.6, 2))
    for resource in (1, 2, 4):
        searcher.on_trial_result("b", _result(resource, resource))
    searcher.on_trial_complete("b", _result(4, 4))
    searcher.suggest("c")
    assert letters[1:3] == [Ended(0, "stopped"), Ended(1, "finished")]
    assert inner.told[:3] == [("0", 1, 0.5), ("0", 2, 0.6), ("0", None, False)]
    assert inner.told[3:] == [("1", 1, 1), ("1", 2, 2), ("1", 3, 4), ("1", 4, False)]


def test_a_trial_whose_process_died_comes_again_as_it_was():
    assert play(settings(), dying={1, 2, 4})[0] == play(settings())[0]
    _, letters, _ = play(settings(), dying={1})
    assert [letter.status for letter in letters if isinstance(letter, Ended)] == ["finished"] * 6


def test_a_process_that_dies_again_and_again_ends_the_search():
    searcher, _, letters = _ordered()
    for name in "abc":
        searcher.suggest(name)
    for time in range(RESTARTS + 1):
        searcher.on_trial_complete("a", error=True)
        found = searcher.suggest("a")
        assert found == (Searcher.FINISHED if time == RESTARTS else {"trial": 0, "point": {"seed": 0}})
    assert isinstance(searcher.fault, EvaluationError)
    assert letters[-1] == Closed()


def test_a_failed_inner_searcher_ends_the_search():
    searcher, inner, letters = _ordered()
    inner.suggest = lambda trial_id: 1 / 0
    assert searcher.suggest("a") == Searcher.FINISHED
    assert isinstance(searcher.fault, ZeroDivisionError)
    assert letters == [Closed()]


def test_a_stopped_search_suggests_nothing_and_restarts_nothing():
    searcher, _, _ = _ordered()
    searcher.suggest("a")
    searcher.stop()
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b") == Searcher.FINISHED


def test_the_number_of_trials_ends_it():
    trials, letters, searcher = play(settings(trials=7))
    assert [number for number, _ in trials] == list(range(7))
    assert [len(letter.points) for letter in letters if isinstance(letter, Batch)] == [3, 3, 1]
    assert searcher.ended == "trials"


@pytest.mark.parametrize(("count", "batches"), [(5, [3, 2]), (6, [3, 3]), (0, [])])
def test_a_list_of_points_ends_it(count, batches):
    points = [_point(number) for number in range(count)]
    trials, letters, searcher = play(settings(searcher="grid", trials=64), iter(points))
    assert [point for _, point in trials] == points
    assert [len(letter.points) for letter in letters if isinstance(letter, Batch)] == batches
    assert searcher.ended == "points"


def _point(number):
    return {"layers": {"0-5/out": number / 10}, "k": 1}


def test_patience_ends_it_after_a_batch():
    """The best of this list is the second; two batches later five trials were no better."""
    places = [0.0, 0.3, 0.9, 0.8, 0.7, 0.6, 0.95, 0.9, 0.85, 0.3]
    points = [_point(10 * place) for place in places]
    scores = [value(point) for point in points]
    late = settings(searcher="grid", trials=64, patience=4)
    trials, _, searcher = play(late, iter(points))
    best = max(range(len(trials)), key=lambda number: scores[number])
    assert searcher.ended == "patience"
    assert len(trials) % 3 == 0
    assert len(trials) - 3 - 1 - best < 4 <= len(trials) - 1 - best


def test_no_batch_begins_after_the_hours(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("boom_ray.sweeps.ordered.time.monotonic", lambda: now[0])
    searcher, _, _ = _ordered(hours=0.5)
    for name in "abc":
        searcher.suggest(name)
    now[0] += 1800.0
    for name in "abc":
        searcher.on_trial_complete(name, _result(0.1))
    assert searcher.suggest("d") == Searcher.FINISHED
    assert searcher.ended == "hours"


def test_tune_may_pickle_it_whatever_is_behind_it():
    _, _, searcher = play(settings(searcher="grid"), iter([_point(1)]))
    assert pickle.dumps(searcher)
