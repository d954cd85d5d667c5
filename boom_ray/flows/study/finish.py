"""The end of a study: results from all scores and costs, the report as an artifact, and the last words."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from boom_ray.config import StudyConfig
from boom_ray.evaluation.report import Row
from boom_ray.evaluation.results import task_scores
from boom_ray.evaluation.scores import Evaluation
from boom_ray.flows.study.members import Accounts
from boom_ray.flows.study.pictures import dendrogram, study_figures, synergy_matrix
from boom_ray.flows.study.products import BASE, Product
from boom_ray.flows.summary import say_table
from boom_ray.flows.workspace import Workspace
from boom_ray.hashing import digest
from boom_ray.store import Artifact, Draft
from boom_ray.studies import tables
from boom_ray.studies.contrasts import Contrasts
from boom_ray.studies.estimates import WHERES, wheres
from boom_ray.studies.report import report_csv, report_markdown
from boom_ray.studies.results import ArmResult, Failed, StudyResult, to_json
from boom_ray.studies.synergy import Clustering, alike
from boom_ray.studies.verdict_text import STATUS_NAMES
from boom_ray.studies.verdicts import judge

KIND = "study"
VERSION = 2
"""Raise it when the same results give another report."""
REPORT, RESULTS = "report.md", "results.json"


def collect(
    space: Workspace,
    config: StudyConfig,
    products: Sequence[Product],
    evaluation: Evaluation,
    accounts: Accounts,
    failures: Sequence[Failed],
) -> StudyResult:
    """What was measured, in the form that reports are made from.

    Args:
        space: the store.
        config: the study.
        products: the models.
        evaluation: their scores and the base's.
        accounts: what they cost.
        failures: arms and seeds without a model.
    """
    scores = task_scores(space.store, evaluation.scores)
    unscored = [
        Failed(one.arm.run.arm.name, one.arm.run.seed, "none of its tasks could be evaluated")
        for one in products
        if one.arm.run.name not in scores
    ]
    return StudyResult(
        name=config.name,
        titles={arm.name: arm.title for arm in config.study.arms},
        seeds=config.study.seeds,
        baseline=config.study.baseline,
        runs=tuple(
            ArmResult(one.arm.run.arm.name, one.arm.run.seed, scores[one.arm.run.name], accounts.cost(one.arm))
            for one in products
            if one.arm.run.name in scores
        ),
        base=scores.get(BASE),
        failures=(*failures, *unscored),
    )


def keep_report(
    space: Workspace, config: StudyConfig, result: StudyResult, clusterings: Mapping[str, Clustering]
) -> Artifact:
    """The report of the results as an artifact; one that is there is taken as it is, with its date.

    Returns:
        Files ``report.md``, ``results.json``, tables as CSV and pictures; figures ``overview`` (rows of the table of
        arms) and ``claims`` (text and status of each).
    """
    found, claims = to_json(result), config.study.claims

    def build(draft: Draft) -> None:
        contrasts = Contrasts(result)
        verdicts = [judge(claim, result, contrasts) for claim in claims]
        pictures = study_figures(result) | _cluster_figures(config, clusterings)
        for name, figure in pictures.items():
            figure.savefig(draft.path / name, bbox_inches="tight")
        for name, rows in {
            "scores.csv": report_csv(result),
            "overview.csv": tables.overview_rows(result),
            "types.csv": tables.type_rows(result),
            "tasks.csv": tables.task_rows(result),
            "tests.csv": tables.significance_rows(result, contrasts),
            "claims.csv": tables.claim_rows(verdicts),
        }.items():
            _write_csv(draft.path / name, rows)
        text = report_markdown(result, claims, _meta(config, clusterings), list(pictures), contrasts)
        (draft.path / REPORT).write_text(text, encoding="utf-8")
        (draft.path / RESULTS).write_text(json.dumps(found, indent=1), encoding="utf-8")
        draft.figures["overview"] = tables.overview_rows(result)
        draft.figures["claims"] = [{"claim": one.claim.text, "status": one.status} for one in verdicts]

    spec = {"claims": [claim.identity() for claim in claims], "clusters": digest(_cluster_facts(clusterings))}
    return space.store.materialize(KIND, spec, {"results": digest(found)}, build, VERSION)


def say_report(space: Workspace, report: Artifact, result: StudyResult, started: float) -> None:
    """Print the table of arms, what the claims came to, and where everything is."""
    rows = [_overview(row, result) for row in report.figures["overview"]]
    say_table(space, rows, f"Arms, mean over tasks and seeds (100 = perfect); Δ: difference to {result.baseline}")
    claims = report.figures["claims"]
    lines = [f"{STATUS_NAMES[one['status']]:>13}: {one['claim']}" for one in claims]
    lines += (
        ["", f"{len(result.missing)} of the arms and seeds were not made, see the report."] if result.missing else []
    )
    lines += [
        *([""] if lines else []),
        f"The report: {report.local() / REPORT}   (with tables and pictures beside it)",
        f"Every step in MLflow: {space.tracker.how_to_open()}",
        f"All artifacts: {space.store.root}; the same command again computes only what is missing.",
        f"Took {time.monotonic() - started:.0f} s.",
    ]
    space.progress.say("\n".join(lines))


def _overview(row: Mapping[str, Any], result: StudyResult) -> dict[str, Any]:
    shown: dict[str, Any] = {"arm": row["arm"]}
    for where in wheres(result):
        if where != "all":
            shown[WHERES[where]] = _points(row[where])
            shown[f"Δ {WHERES[where]}"] = _points(row[f"{where}_difference"])
    return shown | {"full runs": row["full_runs"], "members": row["members"]}


def _points(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _meta(config: StudyConfig, clusterings: Mapping[str, Clustering]) -> dict[str, str]:
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, Python {sys.version.split()[0]}",
        "base": config.model.base,
        "datasets": ", ".join(one.name for one in config.corpus.datasets),
    }
    for arms, one in alike(clusterings):
        found[f"clusters of {', '.join(arms)}"] = " | ".join(", ".join(names) for names in one.clusters)
    return found


def _cluster_figures(config: StudyConfig, clusterings: Mapping[str, Clustering]) -> dict[str, Any]:
    counts = {arm.name: arm.clusters.count for arm in config.study.arms}
    figures = {}
    for (arm, *_), one in alike(clusterings):
        label = "synergy (sum of both relative gains)"
        figures[f"synergy_{arm}.png"] = synergy_matrix(one.names, one.synergy, one.order, label)
        if len(one.tree):
            figures[f"dendrogram_{arm}.png"] = dendrogram(one.tree, one.names, counts[arm])
    return figures


def _cluster_facts(clusterings: Mapping[str, Clustering]) -> dict[str, Any]:
    return {arm: [one.tree.tolist(), [list(names) for names in one.clusters]] for arm, one in clusterings.items()}


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
