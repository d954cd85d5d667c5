"""The driver's side of a search: what trials ask is answered in rounds, and one trial hears its answer after another.

A round begins when every living trial of the batch asks. Its answers are released in the order of trial numbers, each
when the trial before has settled, so that Tune's scheduler meets results in one order whatever takes how long.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from boom_ray.sweeps.mailbox import Batch, Closed, Ended, Letter
from boom_ray.sweeps.trials import Answer, Ask, Point, Status, Trial

Scorer: TypeAlias = Callable[[Sequence[Ask]], Sequence[Answer]]
"""Answers what the living trials of a batch ask, by trial number, in that order; may take hours."""


class Rounds:
    """Reads letters, has asks scored, and puts together what became of every trial.

    Args:
        collect: the letters that have come; waits for the first.
        answer: answers the trial of a number, without waiting for it.
        scorer: see `Scorer`.
        listen: hears every trial that has ended, by number.
    """

    def __init__(
        self,
        collect: Callable[[], Sequence[Letter]],
        answer: Callable[[int, Answer], None],
        scorer: Scorer,
        listen: Callable[[Trial], None],
    ) -> None:
        """Nothing has come."""
        self._collect, self._answer, self._scorer, self._listen = collect, answer, scorer, listen
        self._points: dict[int, Point] = {}
        self._answers: dict[int, list[Answer]] = {}
        self._asked: dict[int, Ask] = {}
        self._alive: set[int] = set()
        self._statuses: dict[int, Status] = {}
        self._is_closed = False
        self._trials: list[Trial] = []

    def run(self) -> list[Trial]:
        """All trials by number, once the search has ended."""
        while not self._is_closed:
            if self._alive and self._alive <= self._asked.keys():
                self._round()
            else:
                self._read()
        return self._trials

    def _round(self) -> None:
        asks = [self._asked.pop(number) for number in sorted(self._alive)]
        answers = [_checked(answer) for answer in self._scorer(asks)]
        for ask, answer in zip(asks, answers, strict=True):
            self._answers[ask.number].append(answer)
            self._answer(ask.number, answer)
            while ask.number in self._alive and ask.number not in self._asked and not self._is_closed:
                self._read()

    def _read(self) -> None:
        for letter in self._collect():
            match letter:
                case Batch(points):
                    self._points |= points
                    self._answers |= {number: [] for number in points}
                    self._alive |= points.keys()
                case Ask():
                    self._file(letter)
                case Ended(number, status):
                    self._alive.discard(number)
                    self._asked.pop(number, None)
                    self._statuses[number] = status
                case Closed():
                    self._is_closed = True
        self._tell()

    def _file(self, ask: Ask) -> None:
        """Put an ask beside the others of its round; a trial that had to start again is told what it knew."""
        known = self._answers.get(ask.number, [])
        if ask.rung < len(known):
            self._answer(ask.number, known[ask.rung])
        else:
            self._asked[ask.number] = ask

    def _tell(self) -> None:
        while (number := len(self._trials)) in self._statuses:
            trial = Trial(number, self._points[number], tuple(self._answers[number]), self._statuses[number])
            self._trials.append(trial)
            self._listen(trial)


def _checked(answer: Answer) -> Answer:
    """An answer whose objectives can be compared; NaN would be better than any number for ASHA."""
    bad = [name for name, value in answer.objectives.items() if not math.isfinite(value)]
    if not bad:
        return answer
    return dataclasses.replace(answer, objectives={}, error=f"{bad[0]} is {answer.objectives[bad[0]]}")
