"""A trial of a sweep: what is asked about a point, what is answered, and what is known of it at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Point: TypeAlias = dict[str, Any]
"""Key of the run to its value, JSON values only, in the order of the space: a choice that has names is given by its
name, ``bags.ratios`` from a grid by the list of ratios, ``merge.weights`` of one part by one list of weights (sum 1),
of several parts by a mapping of part to list. Parameters that do not apply are absent."""
Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Ask:
    """A trial wants to know the scores of its point at a rung.

    Attributes:
        number: of the trial, from 0, in the order of suggestion.
        point: what to merge.
        rung: index into the sweep's rungs.
    """

    number: int
    point: Point
    rung: int


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        scores: selection task to main score; empty after an error.
        objectives: name of an objective to its value, higher is better; empty after an error.
        error: why there is none.
        seconds: computing time of merge and evaluation, and of what the merge had to gather or search before for the
            first time; also where it was computed earlier.
        stored: it was in the store already.
        found: what the merge searched itself, JSON values: ``weights`` one per member, ``scale``.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    objectives: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    stored: bool = False
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: from 0, in the order of suggestion.
        point: what was merged.
        answers: one per rung that it reached, the last of a failed one with its error.
        status: ``finished`` at the last rung, ``stopped`` by ASHA before it, or ``failed``.
    """

    number: int
    point: Point
    answers: tuple[Answer, ...]
    status: Status

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not."""
        return self.answers[-1].error if self.answers else ""

    @property
    def objectives(self) -> Mapping[str, float]:
        """Objectives at the highest rung that it reached; empty if it failed before the first answer."""
        good = [answer for answer in self.answers if not answer.error]
        return good[-1].objectives if good else {}

    @property
    def scores(self) -> Mapping[str, float]:
        """Scores by task at that rung."""
        good = [answer for answer in self.answers if not answer.error]
        return good[-1].scores if good else {}

    @property
    def found(self) -> Mapping[str, Any]:
        """What its merge searched itself, see `Answer`."""
        return self.answers[-1].found if self.answers else {}

    @property
    def seconds(self) -> float:
        """Computing time of all rungs."""
        return sum(answer.seconds for answer in self.answers)
