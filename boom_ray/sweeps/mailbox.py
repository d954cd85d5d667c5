"""What a trial's process runs, and the mailbox through which it asks the driver for its scores.

A trial neither merges nor evaluates: it asks at every rung, waits, and reports the answer to Tune. Its process imports
this module, so nothing heavier than Ray may be imported here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from boom_ray.sweeps.trials import Answer, Ask, Point, Status

POINT, NUMBER, RESOURCE = "point", "trial", "resource"
CLOSED = "the search has ended"
GONE = "the trial has started again, and asks from another process"


class TrialFailedError(Exception):
    """A trial's point could not be scored; Tune marks the trial and the search goes on."""


@dataclass(frozen=True)
class Batch:
    """Trials that were suggested together: number to point."""

    points: Mapping[int, Point]


@dataclass(frozen=True)
class Ended:
    """A trial has ended for Tune, its scheduler and the searcher."""

    number: int
    status: Status


@dataclass(frozen=True)
class Closed:
    """The search has ended; nothing else will come."""


Letter: TypeAlias = Batch | Ask | Ended | Closed


class Mailbox:
    """Letters to the driver and answers to trials; runs as one asynchronous Ray actor per search."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._letters: list[Letter] = []
        self._arrived = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._is_closed = False

    async def post(self, letter: Letter) -> None:
        """Put a letter in."""
        self._letters.append(letter)
        self._arrived.set()

    async def collect(self) -> list[Letter]:
        """All letters in order of arrival, which leave the mailbox; waits for the first."""
        await self._arrived.wait()
        letters, self._letters = self._letters, []
        self._arrived.clear()
        return letters

    async def ask(self, ask: Ask) -> Answer:
        """Put a question in and wait for its answer; after `close` the answer is an error.

        A trial whose process has died asks again from another one. Nobody waits for the first answer any more, and Ray
        does not cancel the call of a dead caller: it would keep one of the actor's slots until none is left.
        """
        if self._is_closed:
            return Answer(error=CLOSED)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        await self.answer(ask.number, Answer(error=GONE))
        self._waiting[ask.number] = future
        await self.post(ask)
        return await future

    async def answer(self, number: int, answer: Answer) -> None:
        """Answer the trial of that number; one that is gone gets nothing."""
        if (future := self._waiting.pop(number, None)) is not None:
            future.set_result(answer)

    async def close(self) -> None:
        """Answer everyone who waits, and who will still ask, with an error."""
        self._is_closed = True
        for number in list(self._waiting):
            await self.answer(number, Answer(error=CLOSED))


def metric(objective: str) -> str:
    """The name under which Tune knows an objective; it has many names of its own in a result."""
    return f"objective.{objective}"


def run_trial(config: Mapping[str, Any], mailbox: Any, rungs: int, reduction: int) -> None:
    """The trainable: ask for the scores at every rung and report them, until Tune says stop.

    Args:
        config: the trial's number and point.
        mailbox: the actor of `Mailbox`.
        rungs: how many there are.
        reduction: ASHA's eta; the resource of rung r is ``reduction ** r``.

    Raises:
        TrialFailedError: the answer is an error.
    """
    import ray
    from ray import tune

    number = config[NUMBER]
    for rung in range(rungs):
        answer = ray.get(mailbox.ask.remote(Ask(number, config[POINT], rung)))
        if answer.error:
            raise TrialFailedError(answer.error)
        values = {metric(name): value for name, value in answer.objectives.items()}
        tune.report({**values, RESOURCE: reduction**rung, NUMBER: number, "done": rung == rungs - 1})
