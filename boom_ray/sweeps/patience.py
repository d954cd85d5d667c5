"""How long a search has gone on without a better trial."""

from __future__ import annotations

from collections.abc import Sequence

Values = tuple[float, ...]


class Patience:
    """Counts trials since the last one that was better than all before it.

    Trials compare at the highest rung that any has reached so far; one that climbs higher is better. With several
    objectives a trial is better if it joins their Pareto front: no other is at least as good in all of them.

    Attributes:
        since: trials since then; those that failed count.
    """

    def __init__(self) -> None:
        """No trial yet."""
        self.since = 0
        self._rung = 0
        self._front: list[Values] = []

    def hear(self, results: Sequence[Values]) -> None:
        """The next trial's objectives, rung by rung; empty if it failed before the first."""
        self.since += 1
        if not results or len(results) < self._rung:
            return
        if len(results) > self._rung:
            self._rung, self._front = len(results), []
        values = results[-1]
        if any(_covers(other, values) for other in self._front):
            return
        self._front = [other for other in self._front if not _covers(values, other)] + [values]
        self.since = 0


def _covers(one: Values, other: Values) -> bool:
    """Whether ``one`` is nowhere worse."""
    return all(a >= b for a, b in zip(one, other, strict=True))
