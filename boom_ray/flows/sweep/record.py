"""What a sweep leaves in MLflow while it goes on: a parent run, a child per trial, and one per member it trains."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from boom_ray.config import SweepConfig, to_yaml
from boom_ray.events import Event
from boom_ray.flows.merge.record import NOT_IN_RESULT
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.store import Draft
from boom_ray.sweeps.outcome import ranked
from boom_ray.sweeps.space import describe
from boom_ray.sweeps.trials import Trial
from boom_ray.training.job import KIND, MemberJob

SEARCH = "search"


def search_key(config: SweepConfig) -> str:
    """What tells one search from another: everything that decides its trials, but not how many there are."""
    return digest({name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT})


class SweepRecorder:
    """The MLflow runs of a sweep; the same search continues the same runs, also with more trials."""

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

    def _mark(self, draft: Draft) -> None:
        (draft.path / "config.yaml").write_text(to_yaml(self.config), encoding="utf-8")

    def members(self, jobs: Sequence[MemberJob], is_done: bool) -> None:
        """Open a run for every member that is about to be trained, or end those of trained ones with their figures."""
        for job in jobs:
            run = self.space.tracker.run(
                *(f"{self.key}/member/{job.key}", f"member {job.name}", self.parent),
                {"stage": "member", "key": job.key, "bag": job.bag_key},
            )
            if not is_done:
                run.params({"bag": job.name, "seed": job.seed, **job.spec()["training"]})
                self.space.curves[job.name] = run
                continue
            artifact = self.space.store.get(KIND, job.key)
            assert artifact is not None  # done
            run.params({name: artifact.figures[name] for name in ("steps", "examples", "seconds")})
            run.end()

    def trial(self, trial: Trial) -> None:
        """A trial has ended."""
        self._trials.append(trial)
        self._log(trial)
        names = [objective.name for objective in self.config.sweep.objectives]
        best = next(iter(ranked(self._trials, names)), None)
        values, first = trial.objectives, names[0]
        if best is not None:
            self.parent.metrics({f"best/{name}": value for name, value in best.objectives.items()}, trial.number)
        note = trial.error.splitlines()[0][:100] if trial.status == "failed" else trial.status
        figures = {"score": values[first]} if values else {}
        self.space(Event("search", f"trial {trial.number}", 1, 1, figures, _words(trial.point, note)))
        told = f"best {best.objectives[first]:.4f}, trial {best.number}" if best is not None else ""
        self.space(Event("search", "all trials", len(self._trials), self.config.sweep.trials, {}, told))

    def _log(self, trial: Trial) -> None:
        run = self.space.tracker.run(
            *(f"{self.key}/trial/{trial.number}", f"trial {trial.number}", self.parent),
            {"stage": "trial", "status": trial.status, **({"error": trial.error} if trial.error else {})},
        )
        run.params({"number": trial.number, "point": trial.point})
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
        run.end("FAILED" if trial.status == "failed" else "FINISHED")


def _words(point: Mapping[str, object], note: str) -> str:
    """A point in a few words, for the progress table."""
    shown = [f"{value}" if not isinstance(value, float) else f"{value:g}" for value in point.values()]
    return f"{note}: {', '.join(shown)}"[:120]
