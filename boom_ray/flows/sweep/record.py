"""What a sweep leaves in MLflow while it goes on: a parent run, a child per trial, and one per member it trains."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from boom_ray.config import SweepConfig, to_yaml
from boom_ray.events import Event
from boom_ray.flows.merge.record import NOT_IN_RESULT
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.store import Draft
from boom_ray.sweeps.outcome import ranked
from boom_ray.sweeps.reach import points
from boom_ray.sweeps.space import describe
from boom_ray.sweeps.trials import Trial
from boom_ray.training.job import KIND, MemberJob

SEARCH = "search"
COUNTED = 10_000
"""Points of a list beyond the trials that are counted, to say how many are left."""
log = logging.getLogger(__name__)


def search_key(config: SweepConfig) -> str:
    """What tells one search from another: everything that decides its trials, but not how many there are."""
    return digest({name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT})


class SweepRecorder:
    """The MLflow runs of a sweep; the same search continues the same runs, also with more trials.

    Attributes:
        key: of the search.
        parent: the sweep's run.
        ending: why the search ended, in a sentence; empty before that.
    """

    def __init__(self, space: Workspace, config: SweepConfig) -> None:
        """Open the parent run and mark in the store that this search has begun."""
        self.space, self.config = space, config
        self.key = search_key(config)
        self.parent = space.tracker.run(self.key, config.name, tags={"stage": "sweep", "store": space.store.root})
        self.parent.params(config.model_dump(mode="json", exclude={"dry_run", "resume", "sweep"}))
        self.parent.params({"sweep": config.sweep.model_dump(mode="json", exclude={"space"})})
        self.parent.text("config.yaml", to_yaml(config))
        self.parent.table("space.csv", describe(config))
        space.store.materialize(SEARCH, {"search": self.key}, {}, self._mark)
        self._trials: list[Trial] = []
        self.ending = ""

    def _mark(self, draft: Draft) -> None:
        (draft.path / "config.yaml").write_text(to_yaml(self.config), encoding="utf-8")

    def members(self, jobs: Sequence[MemberJob], is_done: bool) -> None:
        """Open a run for every member that is about to be trained, or end those of trained ones with their figures.

        Members that the store had are told as trained ones only.
        """
        for job in jobs:
            run = self.space.tracker.run(
                *(f"{self.key}/member/{job.key}", f"member {job.name}", self.parent),
                {"stage": "member", "key": job.key, "bag": job.bag_key},
            )
            run.params({"bag": job.name, "seed": job.seed, **job.spec()["training"]})
            if not is_done:
                self.space.curves[job.name] = run
                continue
            artifact = self.space.store.get(KIND, job.key)
            assert artifact is not None  # done
            run.params({name: artifact.figures[name] for name in ("steps", "examples", "seconds")})
            run.end()

    def trial(self, trial: Trial, members: Mapping[str, str]) -> None:
        """A trial has ended.

        Args:
            trial: the next one.
            members: bag name to the key of its member; empty where they are not known.
        """
        self._trials.append(trial)
        self._log(trial, members)
        names = [objective.name for objective in self.config.sweep.objectives]
        best = next(iter(ranked(self._trials, names)), None)
        values, first = trial.objectives, names[0]
        if best is not None:
            self.parent.metrics({f"best/{name}": value for name, value in best.objectives.items()}, trial.number)
        note = trial.error.splitlines()[0][:100] if trial.status == "failed" else trial.status
        figures = {"score": values[first]} if values else {}
        self.space(Event("search", f"trial {trial.number}", 1, 1, figures, _words(trial.point, note)))
        told = f"best {best.objectives[first]:.4f}, trial {best.number}" if best is not None else ""
        cost = {"cost_s": math.fsum(one.seconds for one in self._trials)}
        self.space(Event("search", "all trials", len(self._trials), self.config.sweep.trials, cost, told))

    def ended(self, reason: str) -> None:
        """There is no further trial; a list that was cut short is worth a warning.

        Args:
            reason: see `boom_ray.sweeps.search.search`.
        """
        count = len(self._trials)
        self.ending, is_cut = why_ended(self.config, reason, count)
        self.parent.tags({"ended": self.ending})
        if is_cut:
            log.warning("%s", self.ending)

    def _log(self, trial: Trial, members: Mapping[str, str]) -> None:
        run = self.space.tracker.run(
            *(f"{self.key}/trial/{trial.number}", f"trial {trial.number}", self.parent),
            {"stage": "trial", "status": trial.status, "error": trial.error},  # empty: an earlier one is overwritten
        )
        run.params({"number": trial.number, "point": trial.point})
        if trial.found:
            run.params({"found": dict(trial.found)})
        now = int(time.time() * 1000)
        sizes = self.config.sweep.rungs
        run.history(
            [
                (name, value, rung, now)
                for rung, answer in enumerate(trial.answers)
                for name, value in answer.objectives.items()
            ]
        )
        run.metrics({f"scores/{task}": value for task, value in trial.scores.items()})
        run.metrics({"seconds": trial.seconds, "rungs": float(len(trial.answers))})
        run.tags({"size": str(sizes[max(0, len(trial.answers) - 1)] or "whole")})
        if members:  # a failure that is only repeated has the tag from the run before
            run.tags({"members": json.dumps(dict(members))})
        run.end("FAILED" if trial.status == "failed" else "FINISHED")


def why_ended(config: SweepConfig, reason: str, count: int) -> tuple[str, bool]:
    """Why a search ended, in a sentence, and whether points of a list (grid, learned) were left out.

    Args:
        config: the sweep.
        reason: ``trials``, ``hours``, ``patience`` or ``points``.
        count: how many trials there were.
    """
    sweep, listed = config.sweep, points(config)
    because = {
        "trials": f"sweep.trials={sweep.trials} were made",
        "hours": f"sweep.hours={sweep.hours:g} are over" if sweep.hours else "",
        "patience": f"the last {sweep.patience} trials were no better than those before (sweep.patience)",
        "points": "every point of the space was tried",
    }[reason]
    left = 0 if listed is None else sum(1 for _ in islice(listed, count, count + COUNTED))
    if not left:
        because = because if listed is None or reason != "trials" else f"{because}, all points of the space"
        return f"The search ended after {count} trials: {because}.", False
    many = f"{left:,}" if left < COUNTED else f"more than {COUNTED:,}"
    return (
        f"The search ended after {count} trials: {because}. {many} points of the space were not tried; a larger "
        f"sweep.{reason} goes on with them.",
        True,
    )


def _words(point: Mapping[str, object], note: str) -> str:
    """A point in a few words, for the progress table."""
    shown = [f"{value}" if not isinstance(value, float) else f"{value:g}" for value in point.values()]
    return f"{note}: {', '.join(shown)}"[:120]
