"""What a BOOM run leaves in MLflow and on the screen: runs, pictures, the model with its card, the summary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from boom_ray.bags.overlap import Overlap
from boom_ray.config import RunConfig, to_yaml
from boom_ray.corpus.counts import counts_table
from boom_ray.errors import StoreError
from boom_ray.evaluation.domains import TaskDomain, domains_table
from boom_ray.evaluation.report import Row, gains, group_tasks, markdown, table
from boom_ray.flows.geometry import report_geometry
from boom_ray.flows.merge.record import NOT_IN_RESULT, record_merge, record_model
from boom_ray.flows.pictures.run import bag_overlap, loss_curves, task_gains
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.run.card import run_card
from boom_ray.flows.summary import say_summary, say_table
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.merging.product.card import model_card
from boom_ray.store import Artifact
from boom_ray.tracking import Run
from boom_ray.training.job import KIND, MemberJob

if TYPE_CHECKING:
    from boom_ray.flows.run.flow import Result


class Recorder:
    """Writes a run into MLflow as it goes: a parent run, and a child per stage and member."""

    def __init__(self, space: Workspace, config: RunConfig, started: float) -> None:
        """Open the parent run; the same configuration continues the same run.

        Args:
            space: store, MLflow, and who listens to progress.
            config: the run.
            started: when it began, by ``time.monotonic``; seconds.
        """
        self.space, self.config, self.started = space, config, started
        decides = {name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT}
        self.key = digest(decides)
        tags = {"stage": "run", "store": space.store.root}
        self.parent = space.tracker.run(self.key, config.name, tags=tags)
        self.parent.params(config.model_dump(mode="json"))
        self.parent.text("config.yaml", to_yaml(config))
        self._children: dict[str, Run] = {}
        self._jobs: dict[str, MemberJob] = {}
        self._ready: Prepared | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Members that were trained have succeeded whatever came after; the tracker ends all other open runs."""
        with contextlib.suppress(StoreError):  # the error that ends the block is the one to hear of
            for name, job in self._jobs.items():
                run = self.child("member", f"member {name}")
                if not run.handle.ended and self.space.store.get(KIND, job.key) is not None:
                    run.end()

    def child(self, stage: str, name: str, tags: Mapping[str, str] | None = None, key: str = "") -> Run:
        """The child run of a stage, or of one unit of it; another ``key`` (of an artifact) makes another run."""
        if name not in self._children:
            labels = {"stage": stage, **(tags or {})}
            self._children[name] = self.space.tracker.run(f"{self.key}/{name}/{key}", name, self.parent, labels)
        return self._children[name]

    def corpus(self, corpus: Artifact) -> None:
        """Counts per dataset."""
        run = self.child("corpus", "corpus", _lineage(corpus))
        rows = counts_table(corpus)
        run.table("counts.csv", rows)
        run.metrics({"examples": float(sum(facts["rows"] for facts in corpus.figures["datasets"].values()))})
        run.end()
        say_table(self.space, rows, "Corpus: examples per dataset")
        for name, facts in corpus.figures["datasets"].items():
            if facts["rejected"]:
                place = f"{self.space.store.location('dataset', facts['key'])}/rejects.jsonl"
                self.space.progress.say(f"Rejected rows of {name}, with file, line and reason: {place}")

    def domains(self, domains: Sequence[TaskDomain]) -> None:
        """What was trained on of every task's source."""
        if domains:
            self.parent.table("domains.csv", domains_table(domains))

    def bags(self, bags: Mapping[str, Artifact], shared: Overlap) -> None:
        """Sizes, overlaps and coverage."""
        run = self.child("bags", "bags")
        rows = [
            {"bag": name, "examples": sum(bag.figures["examples"].values()), "steps": bag.figures["steps"]}
            | {"left over": sum(bag.figures["left_over"].values()), "key": bag.key}
            for name, bag in bags.items()
        ]
        run.table("bags.csv", rows)
        run.metrics({"coverage": shared.coverage})
        run.figure("bag_overlap.png", bag_overlap(list(shared.names), shared.shared.tolist()))
        run.end()

    def expect(self, jobs: Sequence[MemberJob]) -> None:
        """Open the members' runs, so that figures find them while training goes on."""
        for job in jobs:
            stored = self.space.store.get("member", job.key)
            run = self.child("member", f"member {job.name}", {"key": job.key, "bag": job.bag_key}, job.key)
            run.params({"bag": job.name, **job.spec()["training"]})
            self._jobs[job.name] = job
            if stored is None:
                self.space.curves[job.name] = run

    def members(self, members: Mapping[str, Artifact]) -> None:
        """Final figures of every member; their loss curves side by side."""
        curves = {}
        for name, member in members.items():
            run = self.child("member", f"member {name}")
            curve = [(int(step), float(loss)) for step, loss in member.figures["curve"]]
            curves[name] = curve
            if name not in self.space.curves:
                now = int(time.time() * 1000)
                run.history([("loss", loss, step, now) for step, loss in curve])
            run.params({key: member.figures[key] for key in ("steps", "examples", "seconds")})
            run.end()
        self.parent.figure("loss_curves.png", loss_curves(curves))

    def merge(self, merged: Artifact, ready: Prepared) -> None:
        """The recipe and what it did, and how the members lie to one another."""
        self._ready = ready
        run = self.child("merge", "merge", _lineage(merged))
        record_merge(run, merged, ready)
        if self.config.merge.geometry:
            report_geometry(self.space, run, ready.inputs, ready.config)
        run.end()

    def finish(self, result: Result) -> None:
        """Scores, pictures, the model with its card, and the last words on the screen."""
        rows = table(result.evaluation.scores)
        self._scores(result, rows)
        described = (result.corpus, result.bags, result.members, result.merged, self._ready, rows, result.baseline)
        card = model_card(run_card(self.config, *described))
        folder = record_model(self.space, self.parent, result.merged, card, self.config, self.started)
        for run in [*(run for run in self._children.values() if not run.handle.ended), self.parent]:
            run.end("FAILED" if run is self.parent and result.evaluation.failures else "FINISHED")
        self.space.tracker.flush()
        say_summary(self.space, rows, folder, self.started, result.baseline)

    def _scores(self, result: Result, rows: list[Row]) -> None:
        if not rows:  # no evaluation is configured
            return
        run = self.child("scores", "scores")
        scores = result.evaluation.scores
        groups = group_tasks(scores)
        for row in rows:  # the same names on every model's run, so that MLflow's charts compare models
            name = str(row["model"])
            values = {f"scores/{key}": value for key, value in row.items() if isinstance(value, float)}
            run_of = self._run_of(name)
            run_of.metrics(values)
            run_of.end()
            if name == "merged":
                self.parent.metrics(values)
        run.table("scores.csv", [dict(row) for row in rows])
        run.text("scores.md", markdown(rows))
        self.parent.table("scores.csv", [dict(row) for row in rows])
        if result.baseline is not None and not result.evaluation.failures:
            difference = gains(scores, "merged", result.baseline)
            bars = [
                (task, group.replace("_", "-"), difference[task]) for group, tasks in groups.items() for task in tasks
            ]
            self.parent.figure("gain_over_baseline.png", task_gains(bars))

    def _run_of(self, model: str) -> Run:
        """The run that holds a model's scores."""
        names = {"base": ("base", "base"), "merged": ("merge", "merge")}
        return self.child(*names.get(model, ("member", f"member {model}")))


def _lineage(artifact: Artifact) -> dict[str, str]:
    return {"key": artifact.key, "fingerprint": artifact.fingerprint}
