"""What an update leaves in MLflow and on the screen: runs, pictures, the model with its card, the last words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from boom_ray.config import to_yaml
from boom_ray.config.update import FULL
from boom_ray.corpus.counts import counts_table
from boom_ray.evaluation.compare import rows as comparison_rows
from boom_ray.evaluation.compare import summary, to_json
from boom_ray.evaluation.domains import domains_table, trained_domains
from boom_ray.evaluation.report import Row, markdown, table
from boom_ray.evaluation.results import task_scores
from boom_ray.flows.geometry import report_geometry
from boom_ray.flows.lineage import FILE, KIND
from boom_ray.flows.merge.record import NOT_IN_RESULT, record_merge, record_model
from boom_ray.flows.pictures.comparison import gain_bars
from boom_ray.flows.pictures.run import loss_curves, task_gains
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.summary import say_table
from boom_ray.flows.update.card import update_card
from boom_ray.flows.update.plan import UpdatePlan, artifact_of
from boom_ray.flows.update.report import AFTER, BEFORE, changes, comparisons, costs, gains, group_rows, task_rows
from boom_ray.flows.update.result import UpdateResult
from boom_ray.flows.update.stages import Bags, Material
from boom_ray.flows.update.words import last_words, said_of_bags
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.merging.product.card import model_card
from boom_ray.store import Artifact
from boom_ray.tracking import Run
from boom_ray.training.job import KIND as MEMBER
from boom_ray.training.job import MemberJob

NOT_ASKED = (*NOT_IN_RESULT, "current", "full_retraining")
"""What is in no update's identity: where it lies, how its beginning was named, what it is compared with."""


class UpdateRecorder:
    """The MLflow runs of an update: a parent, and a child per stage and member."""

    def __init__(self, space: Workspace, plan: UpdatePlan, started: float) -> None:
        """Open the parent run; the same update of the same model continues the same run.

        Args:
            space: store, MLflow, and who listens to progress.
            plan: the update.
            started: when it began, by ``time.monotonic``; seconds.
        """
        self.space, self.plan, self.started = space, plan, started
        decides = {name: value for name, value in plan.config.identity().items() if name not in NOT_ASKED}
        self.key = digest({"config": decides, "current": plan.before.key})
        tags = {"stage": "update", "store": space.store.root, "updated": f"{KIND}/{plan.before.key}"}
        self.parent = space.tracker.run(self.key, plan.config.name, tags=tags)
        self.parent.params(plan.config.model_dump(mode="json", exclude={"dry_run"}))
        self.parent.text("config.yaml", to_yaml(plan.config))
        self.parent.text("everything.yaml", to_yaml(plan.run))
        self._children: dict[str, Run] = {}

    def child(self, stage: str, name: str, artifact: Artifact | None = None) -> Run:
        """The child run of a stage, or of one unit of it."""
        if name not in self._children:
            tags = {"stage": stage}
            if artifact is not None:
                tags |= {"key": artifact.key, "fingerprint": artifact.fingerprint}
            self._children[name] = self.space.tracker.run(f"{self.key}/{name}", name, self.parent, tags)
        return self._children[name]

    def corpus(self, material: Material) -> None:
        """Counts of the new datasets, and what every task is by all that is trained on."""
        run = self.child("corpus", "corpus", material.fresh)
        rows = counts_table(material.fresh)
        run.table("counts.csv", rows)
        run.end()
        say_table(self.space, rows, "New data: examples per dataset")
        foundation = material.foundation
        domains = trained_domains(foundation.evaluation, foundation.config.corpus.datasets, foundation.sizes)
        if domains:
            self.parent.table("domains.csv", domains_table(domains))

    def contamination(self, found: Artifact) -> None:
        """Texts of new tasks in the old data, which was not searched for them."""
        from boom_ray.evaluation.contamination import contamination_table

        rows = contamination_table(found)
        self.child("corpus", "corpus").table("new_tasks_in_old_data.csv", rows)
        self.child("corpus", "corpus").end()
        if any(row["exact"] or row["near"] or row["exact"] is None for row in rows):
            say_table(self.space, rows, "Texts of new tasks in the old data, which was not searched for them")

    def bags(self, bags: Bags) -> None:
        """Sizes of everything that is drawn."""
        run = self.child("bags", "bags")
        drawn = {f"core of {name}": core for name, core in bags.cores.items()} | {"new": bags.new}
        drawn |= {"core of the new": bags.core} | {f"bag of {name}": bag for name, bag in bags.planned.bags.items()}
        rows = [
            {"bag": name, "dataset": dataset, "examples": count}
            | {"repeated": bag.figures.get("repeated", {}).get(dataset, 0), "key": f"{bag.kind}/{bag.key}"}
            for name, bag in drawn.items()
            for dataset, count in bag.figures["examples"].items()
        ]
        run.table("bags.csv", rows)
        run.end()
        self.space.progress.say(said_of_bags(self.plan, bags))

    def expect(self, jobs: Mapping[str, MemberJob]) -> None:
        """Open the members' runs, so that figures find them while training goes on."""
        for name, job in jobs.items():
            run = self.child("member", f"member {name}")
            run.tags({"key": job.key, "bag": job.bag_key})
            run.params(job.spec()["training"])
            if self.space.store.get(MEMBER, job.key) is None:
                self.space.curves[job.name] = run

    def members(self, members: Mapping[str, Artifact]) -> None:
        """Final figures of every member; their loss curves side by side."""
        curves = {}
        for name, member in members.items():
            run = self.child("member", f"member {name}")
            curves[name] = [(int(step), float(loss)) for step, loss in member.figures["curve"]]
            if name not in self.space.curves:
                now = int(time.time() * 1000)
                run.history([("loss", loss, step, now) for step, loss in curves[name]])
            run.params({key: member.figures[key] for key in ("steps", "examples", "seconds")})
            run.end()
        self.parent.figure("loss_curves.png", loss_curves(curves))

    def merge(self, merged: Artifact, ready: Prepared) -> None:
        """The recipe and what it did, and how the models lie to one another."""
        run = self.child("merge", "merge", merged)
        record_merge(run, merged, ready)
        if ready.config.geometry:
            report_geometry(self.space, run, ready.inputs, ready.config)
        run.end()

    def finish(self, result: UpdateResult) -> None:
        """Scores, costs, pictures, the model with its card, and the last words on the screen."""
        rows = table(result.evaluation.scores)
        cost = self._costs(result)
        reported = self._scores(result, rows) if rows else {}
        self.parent.tags({"lineage": f"{KIND}/{result.lineage.key}"})
        left = artifact_of(self.space.store, KIND, result.lineage.key)
        self.parent.text(FILE, (left.local() / FILE).read_text(encoding="utf-8"))
        card = model_card(update_card(result, rows))
        folder = record_model(self.space, self.parent, result.merged, card, self.plan.run, self.started)
        self.parent.end("FAILED" if result.evaluation.failures else "FINISHED")
        self.space.tracker.flush()
        last_words(self.space, result, reported, cost, folder, self.started)

    def _costs(self, result: UpdateResult) -> list[Row]:
        update, full = result.cost_of_update(), result.cost_of_full_retraining()
        rows = costs(update, float(result.merged.figures["seconds"]), full, result.cost_of_before())
        self.parent.table("costs.csv", [dict(row) for row in rows])
        self.parent.metrics({"cost/update": update.runs, "cost/full_retraining": full.runs})
        return rows

    def _scores(self, result: UpdateResult, rows: Sequence[Row]) -> dict[str, str]:
        """Tables, tests and pictures; returns what the tests say, by what is compared."""
        groups, run = self.plan.groups, self.child("scores", "scores")
        scores = task_scores(self.space.store, result.evaluation.scores)
        values = {model: {task: one.value for task, one in own.items()} for model, own in scores.items()}
        for row in rows:  # the same names on every model's run, so that MLflow's charts compare models
            own = self._run_of(str(row["model"]))
            own.metrics({f"scores/{key}": value for key, value in row.items() if isinstance(value, float)})
            if own is not self.parent:
                own.end()
        for name, found in (("tasks", task_rows(values, groups)), ("groups", group_rows(values, groups))):
            self.parent.table(f"{name}.csv", [dict(row) for row in found])
        run.table("scores.csv", [dict(row) for row in rows])
        run.text("scores.md", markdown(list(rows)))
        self.parent.metrics(gains(values, groups))
        said = {}
        for other in (BEFORE, FULL):
            if bars := changes(values, groups, other):
                self.parent.figure(f"change_from_{other}.png", task_gains(bars, other))
        for name, one in comparisons(scores, groups, self.plan.run.evaluation.seed).items():
            place = f"compare/{name.replace(', ', '-').replace(' ', '-')}"
            self.parent.table(f"{place}.csv", [dict(row) for row in comparison_rows(one)])
            self.parent.text(f"{place}.json", json.dumps(to_json(one), indent=1))
            self.parent.figure(f"{place}.png", gain_bars(one))
            said[name] = summary(one)
        self.parent.text("comparisons.md", "\n\n".join(f"**{name}**\n\n{text}" for name, text in said.items()))
        run.end()
        return said

    def _run_of(self, model: str) -> Run:
        """The run that holds a model's scores."""
        if model == AFTER:
            return self.parent
        return self.child("scores", BEFORE) if model == BEFORE else self.child("member", f"member {model}")
