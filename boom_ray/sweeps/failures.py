"""Trials that failed, kept in the store: a search that is repeated hears of the same failures.

What may be mended between two runs (memory, a network) would else turn a failure into a score, and the searcher, which
learns from both, would suggest other trials from there on.
"""

from __future__ import annotations

from typing import Any

from boom_ray.store import Draft, Store, artifact_key
from boom_ray.sweeps.trials import Answer, Ask, Trial

KIND = "failed_trial"
RETRY = "sweep.retry_failed=true"
KEPT = f"A trial that failed stays failed when its search is repeated; with {RETRY} it is tried again."


class Failures:
    """The failures of one search.

    Args:
        store: where they are kept, as artifacts of kind ``failed_trial`` without files; figures ``error`` and
            ``seconds``.
        search: key of the search.
    """

    def __init__(self, store: Store, search: str) -> None:
        """Nothing is read."""
        self.store, self.search = store, search

    def find(self, ask: Ask) -> Answer | None:
        """The answer that this trial got at this rung if it failed there in an earlier run."""
        spec = self._spec(ask.number, ask.point, ask.rung)
        found = self.store.get(KIND, artifact_key(KIND, spec, {}))
        if found is None:
            return None
        return Answer(error=found.figures["error"], seconds=found.figures["seconds"], stored=True)

    def keep(self, trial: Trial) -> None:
        """Keep why a trial failed; one that did not is let go by."""
        if trial.status != "failed" or not trial.error:
            return
        answer = trial.answers[-1]

        def build(draft: Draft) -> None:
            draft.figures = {"error": answer.error, "seconds": answer.seconds}

        self.store.materialize(KIND, self._spec(trial.number, trial.point, len(trial.answers) - 1), {}, build)

    def forget(self) -> int:
        """Remove what is kept of this search, so that its failed trials are tried again; returns how many."""
        count = 0
        for kind, key in self.store.finished(KIND):
            found = self.store.get(kind, key)
            if found is not None and found.spec["search"] == self.search:
                self.store.fs.rm(self.store.folder(f"{kind}/{key}"), recursive=True)
                count += 1
        return count

    def _spec(self, number: int, point: dict[str, Any], rung: int) -> dict[str, Any]:
        """The point is in it: the same number may stand for another one after a retry."""
        return {"search": self.search, "number": number, "point": point, "rung": rung}
