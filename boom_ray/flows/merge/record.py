"""What a merge leaves in MLflow, and what `jobs/merge.py` leaves beside it: the model with its card, the last words."""

from __future__ import annotations

import json
import time
from pathlib import Path

from boom_ray.config import MergeJobConfig, RunConfig, to_yaml
from boom_ray.evaluation.report import Row, markdown, table
from boom_ray.evaluation.scores import Evaluation
from boom_ray.flows.geometry import report_geometry, short_table
from boom_ray.flows.ingredients import fingerprint_of_all
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.summary import link_model, means, say_summary, say_table
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.product.card import CardFacts, CardMember, model_card
from boom_ray.merging.run import MODEL, release
from boom_ray.model.folder import stored_prompts
from boom_ray.store import Artifact
from boom_ray.tracking import Run

NOT_IN_RESULT = ("store", "tracking", "cluster")  # where a run lies and is logged, not what it is
FIGURES = ("tensors", "parameters", "bytes_read", "bytes_written", "memory_bound", "seconds")
Described = RunConfig | MergeJobConfig
MOST_ROWS = 40
"""Groups of tensors that the geometry table on the screen may have; deeper models show the whole only."""


def record_merge(run: Run, merged: Artifact, ready: Prepared) -> None:
    """Recipe, lineage and figures of a merge.

    Args:
        run: takes the recipe as parameters and as ``recipe.json``, fingerprints as parameters, figures as metrics, what
            the method found before the merge as ``found.json``, and the data that it looked at for that as
            ``looked_at.json``, and in short as parameters.
        merged: the merge.
        ready: its models and recipe.
    """
    inputs, figures = ready.inputs, merged.figures
    lineage = {f"member {member.name}": member.fingerprint for member in inputs.members} | lineage_of_data(ready)
    if inputs.base:
        lineage["base"] = inputs.base.fingerprint
    weights = dict(zip((member.name for member in inputs.members), merged.spec["weights"], strict=True))
    run.params({"recipe": merged.spec, "weights_used": weights, "lineage": lineage})
    run.text("recipe.json", json.dumps(merged.spec, indent=1, sort_keys=True))
    values = {name: float(figures[name]) for name in FIGURES if name in figures}
    if figures.get("seconds"):
        values["bytes_per_second"] = (figures["bytes_read"] + figures["bytes_written"]) / figures["seconds"]
    for name, found in figures["coefficients"].items():  # by the names that the members had when they were merged
        values |= {f"coefficients/{name}/{end}": value for end, value in found.items()}
    run.metrics(values)
    if ready.facts:
        run.text("found.json", json.dumps(ready.facts, indent=1))
    if ready.looked_at:
        run.text("looked_at.json", json.dumps(ready.looked_at, indent=1))
        run.params({"looked_at": {name: ready.looked_at[name] for name in ("examples", "settings")}})
    learned = ready.facts.get("learned", {}).get("curve", [])
    now = int(time.time() * 1000)
    run.history([("probe_loss", loss, step, now) for step, loss in enumerate(learned)])


def lineage_of_data(ready: Prepared) -> dict[str, str]:
    """Corpus and statistics that a method looked at: fingerprint and keys by name; empty for methods that need none."""
    seen = ready.looked_at
    return {"corpus looked at": seen["corpus"]["fingerprint"], **seen["artifacts"]} if seen else {}


def what_was_found(ready: Prepared) -> dict[str, str | float]:
    """What the method found before the merge, for the card."""
    facts = ready.facts
    found: dict[str, str | float] = {f"selection score of {name}": one for name, one in facts.get("soups", {}).items()}
    if "learned" in facts:
        found |= {name: facts["learned"][name] for name in ("scale", "loss_before", "loss_after")}
    return found


def record_model(space: Workspace, run: Run, merged: Artifact, card: str, config: Described, started: float) -> Path:
    """The merged model with its card: as an artifact, under a path that people can remember, and in MLflow.

    Args:
        space: the store.
        run: takes the card as ``model_card.md`` and as its description, place and key of the model as tags, and the
            job's seconds as ``wall_seconds``, unless this very model was there before: then they would tell how long a
            look into the store takes.
        merged: the merge.
        card: the model card.
        config: its name, and whether MLflow gets the model.
        started: when the job began, by ``time.monotonic``; seconds.

    Returns:
        The model's folder.
    """
    before = space.store.finished("release")
    released = release(space.store, merged, card)
    folder = link_model(space.store, released.local() / MODEL, config.name)
    run.text("model_card.md", card)
    run.note(card.split("---\n", 2)[-1])
    run.tags({"model": str(folder), "release": released.key})
    if config.tracking.log_model:
        run.model(released.local() / MODEL, "model", config.tracking.register_as)
    if (released.kind, released.key) not in before:
        run.metrics({"wall_seconds": time.monotonic() - started})
    return folder


class MergeRecorder:
    """The MLflow run of `jobs/merge.py`; the same configuration and models continue the same run."""

    def __init__(self, space: Workspace, config: MergeJobConfig, inputs: MergeInputs, started: float) -> None:
        """Open the run; ``started`` is when the job began, by ``time.monotonic``."""
        self.space, self.config, self.started = space, config, started
        decides = {name: value for name, value in config.identity().items() if name not in NOT_IN_RESULT}
        key = digest({"config": decides, "models": fingerprint_of_all(inputs)})
        self.run = space.tracker.run(key, config.name, tags={"stage": "merge", "store": space.store.root})
        self.run.params(config.model_dump(mode="json", exclude={"dry_run"}))
        self.run.text("config.yaml", to_yaml(config))

    def geometry(self, ready: Prepared) -> None:
        """The geometry report, in MLflow and in short on the screen."""
        if not self.config.merge.geometry:
            return
        rows = report_geometry(self.space, self.run, ready.inputs, ready.config)
        title = "The members' differences from the base" if ready.inputs.base else "The members' weights"
        if len(ready.inputs.members) > 1:
            say_table(self.space, short_table(rows if len(rows) <= MOST_ROWS else rows[-1:]), title)

    def finish(self, merged: Artifact, ready: Prepared, evaluation: Evaluation) -> None:
        """Figures, scores, the model with its card, and the last words on the screen."""
        self.run.tags({"key": merged.key, "fingerprint": merged.fingerprint})
        record_merge(self.run, merged, ready)
        rows = table(evaluation.scores)
        self._scores(rows)
        card = model_card(self._card(merged, ready, rows))
        folder = record_model(self.space, self.run, merged, card, self.config, self.started)
        self.run.end("FAILED" if evaluation.failures else "FINISHED")
        self.space.tracker.flush()
        say_summary(self.space, rows, folder, self.started)

    def _scores(self, rows: list[Row]) -> None:
        if not rows:
            return
        self.run.table("scores.csv", [dict(row) for row in rows])
        self.run.text("scores.md", markdown(rows))
        for row in rows:
            if row["model"] == "merged":
                values = {f"scores/{key}": value for key, value in row.items() if isinstance(value, float)}
                self.run.metrics(values)

    def _card(self, merged: Artifact, ready: Prepared, rows: list[Row]) -> CardFacts:
        members = [
            CardMember(ref.name, "", ref.examples, 0, weight, _origin(given.path), ref.fingerprint)
            for ref, given, weight in zip(
                ready.inputs.members, self.config.members, merged.spec["weights"], strict=True
            )
        ]
        lineage = {"merge": merged.key, "weights of the merged model": merged.fingerprint}
        if ready.inputs.base:
            lineage["weights of the base"] = ready.inputs.base.fingerprint
        return CardFacts(
            name=self.config.name,
            base=_origin(self.config.base or ""),
            recipe=merged.spec,
            members=members,
            datasets={},
            prompts=stored_prompts(merged.local() / MODEL),
            scores=[means(row) for row in rows],
            lineage=lineage | lineage_of_data(ready),
            found=what_was_found(ready),
            looked_at=ready.looked_at,
        )


def _origin(path: str) -> str:
    """Where a model came from: folders by their whole path, so that none is taken for a hub name."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if path and folder.is_dir() else path
