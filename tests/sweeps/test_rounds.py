"""The driver's side of a search, with a script for Tune's."""

import math

import pytest

from boom_ray.sweeps.mailbox import Batch, Closed, Ended
from boom_ray.sweeps.rounds import Rounds
from boom_ray.sweeps.trials import Answer, Ask, Trial


class Stage:
    """Letters that come by themselves, and letters that an answer brings about."""

    def __init__(self, letters, after=None, scorer=None):
        self.letters, self.after = list(letters), after or {}
        self.given, self.asked, self.heard = [], [], []
        self.scorer = scorer or (lambda ask: Answer(objectives={"score": ask.number + ask.rung / 10}))

    def collect(self):
        return [self.letters.pop(0)]

    def answer(self, number, answer):
        assert not self.letters, "what the answer before brought about must have been read"
        self.given.append((number, answer))
        self.letters += self.after.get(
            (number, sum(one == number for one, _ in self.given)), [Ended(number, "finished")]
        )

    def score(self, asks):
        self.asked.append([(ask.number, ask.rung) for ask in asks])
        return [self.scorer(ask) for ask in asks]

    def run(self):
        return Rounds(self.collect, self.answer, self.score, self.heard.append).run()


def _asks(*numbers, rung=0):
    return [Ask(number, {"seed": number}, rung) for number in numbers]


BATCH = Batch({0: {"seed": 0}, 1: {"seed": 1}, 2: {"seed": 2}})
NEXT = Batch({3: {"seed": 3}})


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_batch_is_scored_together_and_answered_in_order(order):
    stage = Stage(
        [BATCH, *_asks(*order)],
        {(2, 1): [Ended(2, "finished"), NEXT, *_asks(3)], (3, 1): [Ended(3, "finished"), Closed()]},
    )
    trials = stage.run()
    assert stage.asked == [[(0, 0), (1, 0), (2, 0)], [(3, 0)]]
    assert [number for number, _ in stage.given] == [0, 1, 2, 3]
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials == stage.heard
    assert trials[2] == Trial(2, {"seed": 2}, (Answer(objectives={"score": 2.0}),), "finished")


def test_an_ask_may_overtake_its_batch():
    stage = Stage([*_asks(1), BATCH, *_asks(0, 2)], {(2, 1): [Ended(2, "finished"), Closed()]})
    assert len(stage.run()) == 3
    assert stage.asked == [[(0, 0), (1, 0), (2, 0)]]


def test_an_answer_is_held_back_until_the_trial_before_has_settled():
    """Trial 0 goes on to the next rung, 1 is stopped; what comes from 2 in between changes nothing."""
    stage = Stage(
        [BATCH, *_asks(0, 1, 2)],
        {
            (0, 1): _asks(0, rung=1),
            (1, 1): [Ended(1, "stopped")],
            (2, 1): _asks(2, rung=1),
            (2, 2): [Ended(2, "finished"), Closed()],
        },
    )
    trials = stage.run()
    assert stage.asked == [[(0, 0), (1, 0), (2, 0)], [(0, 1), (2, 1)]]
    assert [trial.status for trial in trials] == ["finished", "stopped", "finished"]
    assert [len(trial.answers) for trial in trials] == [2, 1, 2]


def test_a_trial_is_heard_when_all_before_it_have_ended():
    stage = Stage([BATCH, *_asks(0, 1, 2)], {(0, 1): _asks(0, rung=1), (0, 2): [Ended(0, "finished"), Closed()]})
    counts = []
    scorer = stage.scorer
    stage.scorer = lambda ask: (counts.append(len(stage.heard)), scorer(ask))[1]
    stage.run()
    assert counts == [0, 0, 0, 0]  # 1 and 2 have ended before 0 asks again
    assert [trial.number for trial in stage.heard] == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_does_not_compare_is_an_error(value):
    stage = Stage(
        [Batch({0: {}}), *_asks(0)],
        {(0, 1): [Ended(0, "failed"), Closed()]},
        lambda ask: Answer({"task": 0.5}, {"other": 1.0, "score": value}),
    )
    (trial,) = stage.run()
    assert trial.error == f"score is {value}"
    assert stage.given[0][1].objectives == {}


def test_a_trial_that_starts_again_is_told_what_it_knew():
    """The process of trial 0 dies between its rungs, and that of 1 before it has reported."""
    stage = Stage(
        [Batch({0: {"seed": 0}, 1: {"seed": 1}}), *_asks(0, 1)],
        {
            (0, 1): _asks(0),
            (0, 2): _asks(0, rung=1),
            (1, 1): _asks(1),
            (1, 2): [Ended(1, "stopped")],
            (0, 3): [Ended(0, "finished"), Closed()],
        },
    )
    trials = stage.run()
    assert stage.asked == [[(0, 0), (1, 0)], [(0, 1)]]  # nothing is scored twice
    assert [number for number, _ in stage.given] == [0, 0, 1, 1, 0]
    assert stage.given[0] == stage.given[1]
    assert stage.given[2] == stage.given[3]
    assert [len(trial.answers) for trial in trials] == [2, 1]


def test_what_the_scorer_raises_comes_through():
    def scorer(ask):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage([BATCH, *_asks(0, 1, 2)], scorer=scorer).run()
