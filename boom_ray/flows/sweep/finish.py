"""What a sweep leaves at its end: tables, pictures, the chosen model and its configuration, and the last words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from boom_ray.config import SweepConfig, to_yaml
from boom_ray.evaluation.compare import rows as comparison_rows
from boom_ray.evaluation.compare import to_json
from boom_ray.evaluation.report import table
from boom_ray.flows.merge.record import record_merge, record_model
from boom_ray.flows.pictures.comparison import gain_bars
from boom_ray.flows.run.card import run_card
from boom_ray.flows.summary import say_summary, say_table
from boom_ray.flows.sweep.pictures import sweep_figures
from boom_ray.flows.sweep.record import SweepRecorder
from boom_ray.flows.sweep.report import CHOSEN, Findings, report_text
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.merging.product.card import model_card
from boom_ray.progress import clock_text
from boom_ray.store import Artifact, Draft
from boom_ray.sweeps.failures import KEPT
from boom_ray.sweeps.objectives import objectives
from boom_ray.sweeps.outcome import front_cell, markdown, ranked, rows, statistics
from boom_ray.sweeps.trials import Trial

KIND = "sweep"
SHOWN = 8
Table = Sequence[Mapping[str, object]]


def finish(
    space: Workspace,
    config: SweepConfig,
    recorder: SweepRecorder,
    corpus: Artifact,
    trials: Sequence[Trial],
    found: Findings,
    started: float,
) -> None:
    """Log, keep and print everything.

    Args:
        space: store, MLflow and the screen.
        config: the sweep.
        recorder: its MLflow runs.
        corpus: what members were trained on.
        trials: all of them.
        found: what came of them.
        started: when the job began, by ``time.monotonic``; seconds.
    """
    run, scores, shown = recorder.parent, table(found.evaluation.scores), rows(trials, config)
    run.table("trials.csv", shown)
    run.table("scores.csv", [dict(row) for row in scores])
    for name, figure in sweep_figures(trials, config, marked(found, config)).items():
        run.figure(name, figure)
    record_merge(run, found.merged, found.ready)
    for one in found.comparisons:
        name = f"compare/{CHOSEN}-and-{one.names[0]}"
        run.table(f"{name}.csv", [dict(row) for row in comparison_rows(one)])
        run.text(f"{name}.json", json.dumps(to_json(one), indent=1))
        run.figure(f"{name}.png", gain_bars(one))
    text = f"{recorder.ending}\n\n{report_text(found)}\n\n{markdown(trials, config)}\n"
    best = to_yaml(found.config.model_copy(update={"name": f"{config.name}-chosen"}))
    run.text("report.md", text)
    run.text("best.yaml", best)
    values = next(row for row in scores if row["model"] == CHOSEN)
    run.metrics({f"scores/{key}": value for key, value in values.items() if isinstance(value, float)})
    run.metrics({f"trials/{key}": float(value) for key, value in statistics(trials).items()})
    described = (corpus, found.planned.bags, found.members, found.merged, found.ready, scores, found.planned.everything)
    folder = record_model(space, run, found.merged, model_card(run_card(found.config, *described)), config, started)
    run.end()
    kept = _keep(space, recorder.key, trials, {"report.md": text, "best.yaml": best}, shown)
    space.tracker.flush()
    _say(space, config, trials, found, kept, recorder.ending)
    say_summary(space, scores, folder, started, found.planned.everything)


def marked(found: Findings, config: SweepConfig) -> dict[str, dict[str, float]]:
    """Name of every model that the report compares to its objectives, for pictures."""
    wanted = config.sweep.objectives
    return {name: objectives(scores, found.types, wanted) for name, scores in found.selection.items()}


def _keep(space: Workspace, key: str, trials: Sequence[Trial], texts: Mapping[str, str], shown: Table) -> Path:
    """The report and the chosen configuration, in the store."""

    def build(draft: Draft) -> None:
        for name, text in texts.items():
            (draft.path / name).write_text(text, encoding="utf-8")
        (draft.path / "trials.json").write_text(json.dumps(shown, indent=1), encoding="utf-8")

    told = [[trial.number, trial.status, trial.point, dict(trial.scores)] for trial in trials]
    return space.store.materialize(
        KIND, {"search": key, "texts": digest(dict(texts))}, {"trials": digest(told)}, build
    ).local()


def _say(
    space: Workspace, config: SweepConfig, trials: Sequence[Trial], found: Findings, kept: Path, ending: str
) -> None:
    names = [objective.name for objective in config.sweep.objectives]
    on_front = front_cell(trials, names)
    best = [
        {"trial": trial.number}
        | on_front(trial)
        | {name: round(100 * trial.objectives[name], 2) for name in names}
        | {"point": ", ".join(f"{key} {value}" for key, value in trial.point.items())}
        for trial in ranked(trials, names)[:SHOWN]
    ]
    say_table(space, best, "The best trials, by the selection tasks (100 = perfect)")
    counts = statistics(trials)
    failed = [trial for trial in trials if trial.status == "failed"]
    lines = [
        f"{counts['trials']:.0f} trials: {counts['finished']:.0f} finished, {counts['stopped']:.0f} stopped early, "
        f"{counts['failed']:.0f} failed; {clock_text(counts['seconds'])} of computing. {ending}",
        *(f"  trial {trial.number} failed: {trial.error.splitlines()[0][:200]}" for trial in failed[:SHOWN]),
        *([f"  {KEPT}"] if failed else []),
        report_text(found),
        "",
        f"The chosen run as a configuration: {kept / 'best.yaml'}   (python jobs/boom.py makes the same model of it)",
        "More trials: the same command with a larger sweep.trials; what was trained and tried is not done again.",
    ]
    space.progress.say("\n".join(lines))
