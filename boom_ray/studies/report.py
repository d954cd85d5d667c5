"""The report of a study as Markdown and CSV; made from its stored results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from boom_ray.config.study import ClaimConfig, Where
from boom_ray.evaluation import report
from boom_ray.evaluation.comparison_text import GROUP_NAMES
from boom_ray.evaluation.report import Row
from boom_ray.evaluation.scores import GROUPS, Group
from boom_ray.progress import clock_text
from boom_ray.studies import tables
from boom_ray.studies.contrasts import Contrasts
from boom_ray.studies.estimates import BASE, LEVEL, WHERES, Estimate, difference_of, levels, tasks_where, wheres
from boom_ray.studies.results import StudyResult
from boom_ray.studies.verdict_text import RULES, STATUS_NAMES, interval_text, paragraph, points, signed
from boom_ray.studies.verdicts import Verdict, judge

NONE = "–"


def report_csv(study: StudyResult) -> list[Row]:
    """Every score in long form; see `boom_ray.studies.tables.score_rows`."""
    return tables.score_rows(study)


def report_markdown(
    study: StudyResult,
    claims: Sequence[ClaimConfig],
    meta: Mapping[str, str],
    pictures: Sequence[str] = (),
    contrasts: Contrasts | None = None,
) -> str:
    """The whole report.

    Args:
        study: what was measured.
        claims: to be judged.
        meta: what stands at the top: command, date, machine, name of the configuration…
        pictures: files beside the report to show in it.
        contrasts: of the same study, to make each comparison only once.

    Raises:
        EvaluationError: scores that cannot be compared, see `boom_ray.evaluation.compare.compare`.
    """
    found = contrasts or Contrasts(study)
    verdicts = [judge(claim, study, found) for claim in claims]
    sections = {
        "Claims": claims_text(verdicts),
        "Scores and cost": overview_text(study),
        f"Differences to {study.baseline}": differences_text(study),
        "Pictures": "\n\n".join(f"![{name}]({name})" for name in pictures),
        "Task types": types_text(study),
        "Tasks": tasks_text(study),
        f"Tests against {study.baseline}": significance_text(study, found),
        "What is missing": missing_text(study),
    }
    blocks = [f"# {study.name}: report of the study", *_head(study, meta)]
    for title, text in sections.items():
        blocks += [f"## {title}", text] if text else []
    return "\n\n".join(blocks) + "\n"


def _head(study: StudyResult, meta: Mapping[str, str]) -> list[str]:
    lines = "\n".join(f"- {key}: {_line(value)}" for key, value in meta.items())
    counts = ", ".join(f"{len(tasks_where(study, where))} {WHERES[where]}" for where in wheres(study) if where != "all")
    made = sum(len(runs) for runs in study.arms.values())
    words = (
        f"{len(study.titles)} arms with {len(study.seeds)} seeds, {made} of {len(study.titles) * len(study.seeds)} "
        f"made; tasks: {counts or 'none'}. The baseline is `{study.baseline}`. Scores and differences are points of "
        "100; after ± stands the standard deviation over seeds; bold is the best of its column."
    )
    return [*([lines] if lines else []), words]


def claims_text(verdicts: Sequence[Verdict]) -> str:
    """A table of all claims, a paragraph on each, and the rules; empty without claims."""
    if not verdicts:
        return ""
    rows: list[Row] = [
        {"claim": _cell(verdict.claim.text), "verdict": STATUS_NAMES[verdict.status]} for verdict in verdicts
    ]
    return "\n\n".join([report.markdown(rows), *map(paragraph, verdicts), f"How claims are judged. {RULES}"])


def overview_text(study: StudyResult) -> str:
    """Means over the tasks of every group, and what each arm costs."""
    rows = _table({WHERES[where]: levels(study, tasks_where(study, where)) for where in wheres(study)}, study)
    for row in rows:
        arm = str(row["arm"])
        cost = tables.mean_cost(study, arm)
        row |= {
            "seeds": str(len(study.arms[arm])) if arm != BASE else NONE,
            "full runs": f"{cost.runs:.2f}" if cost else NONE,
            "of them shared": f"{cost.shared_runs:.2f}" if cost else NONE,
            "training time": clock_text(cost.seconds) if cost else NONE,
            "members": str(cost.members) if cost else NONE,
        }
    titles = [f"- `{arm}`: {_line(title)}" for arm, title in study.titles.items() if title and title != arm]
    note = (
        "Cost is that of making the arm alone, once, in the mean over seeds: examples seen, in units of one epoch of "
        "all data (a full run), and the measured training time of its members, one after the other ([h:]mm:ss). For "
        "clusters, the trainings that find them are in both. What several arms need is trained once, and counts as "
        "shared in each."
    )
    return "\n\n".join([report.markdown(rows), note, *(["\n".join(titles)] if titles else [])])


def differences_text(study: StudyResult) -> str:
    """Every arm less the baseline with intervals over seeds; empty without other arms."""
    rows: list[Row] = []
    for arm in study.arms:
        if arm != study.baseline:
            row: Row = {"arm": arm}
            for where in wheres(study):
                found = difference_of(study, arm, study.baseline, tasks_where(study, where))
                row[WHERES[where]] = _difference(found)
            rows.append(row)
    note = f"Paired by seed; in brackets Student's {100 * LEVEL:g} % interval over seeds, where there are two or more."
    return f"{report.markdown(rows)}\n\n{note}" if rows else ""


def types_text(study: StudyResult) -> str:
    """Means over the tasks of each type, a table per group; empty without tasks."""

    def columns(group: Group) -> dict[str, Mapping[str, Estimate | None]]:
        own = tables.types(study, group)
        return {f"{kind} ({len(tasks)})": levels(study, tasks) for kind, tasks in own.items()}

    text = _by_group(study, lambda group: _table(columns(group), study))
    return f"{text}\n\nIn brackets: the number of tasks." if text else ""


def tasks_text(study: StudyResult) -> str:
    """Every task's score, a table per group with a row per task; empty without tasks."""

    def rows(group: Group) -> list[Row]:
        found: list[Row] = []
        for task in tasks_where(study, group):
            cells = _bold(levels(study, [task]))
            found.append({"task": _cell(task), "type": study.tasks[task].type, **cells})
        return found

    text = _by_group(study, rows)
    return f"{text}\n\nHere the best of every row is bold." if text else ""


def significance_text(study: StudyResult, contrasts: Contrasts) -> str:
    """Tests over tasks against the baseline, a table per set of tasks; empty if nothing can be compared."""
    blocks = []
    for where, found in tables.tested(study, contrasts).items():
        blocks += [f"{_title(where)}:", report.markdown([_tested(one) for one in found])] if found else []
    if not blocks:
        return ""
    note = (
        f"Over tasks, of the means over seeds: {100 * LEVEL:g} % bootstrap interval, p-values of Wilcoxon's "
        "signed-rank test and of the sign-flip test, each also with Holm's correction for the number of arms. A single "
        "task is better or worse by the test over its queries, or by its score where there are no values per query."
    )
    return "\n\n".join([*blocks, note])


def _tested(one: tables.Tested) -> Row:
    counts = one.contrast.aggregate
    return {
        "arm": one.arm,
        "tasks": str(len(one.contrast.tasks)),
        "difference": signed(one.contrast.seeds.mean),
        "interval over tasks": interval_text(one.tests.interval) or NONE,
        "Wilcoxon": _p(one.tests.wilcoxon),
        "Wilcoxon, Holm": _p(one.wilcoxon),
        "sign-flip": _p(one.tests.permutation),
        "sign-flip, Holm": _p(one.permutation),
        "better/even/worse": f"{counts.wins}/{counts.ties}/{counts.losses}",
    }


def missing_text(study: StudyResult) -> str:
    """Arms that were not made for a seed, and tasks that a run lacks; empty if nothing is missing."""
    lines = [f"- `{one.arm}`, seed {one.seed}: {_line(one.error)}" for one in study.missing]
    for arm, runs in study.arms.items():
        for seed, run in runs.items():
            if lacking := [task for task in study.tasks if task not in run.scores]:
                lines.append(f"- `{arm}`, seed {seed} has no score on: {', '.join(lacking)}")
    return "\n".join(lines)


def _by_group(study: StudyResult, rows: Callable[[Group], list[Row]]) -> str:
    blocks = []
    for group in GROUPS:
        if tasks_where(study, group):
            blocks += [f"{_title(group)}:", report.markdown(rows(group))]
    return "\n\n".join(blocks)


def _table(columns: Mapping[str, Mapping[str, Estimate | None]], study: StudyResult) -> list[Row]:
    """A row per arm, the base model first; the best of every column is bold."""
    names = [*([BASE] if study.base is not None else []), *study.arms]
    cells = {column: _bold(found) for column, found in columns.items()}
    return [{"arm": name, **{column: cells[column][name] for column in columns}} for name in names]


def _bold(found: Mapping[str, Estimate | None]) -> dict[str, str]:
    """Cells of numbers that compete; the best by what is shown of it is bold."""
    shown = {name: round(100 * one.mean, 2) for name, one in found.items() if one is not None}
    best = {name for name, value in shown.items() if value == max(shown.values())} if len(shown) > 1 else set()
    return {name: f"**{_level(one)}**" if name in best else _level(one) for name, one in found.items()}


def _level(found: Estimate | None) -> str:
    if found is None:
        return NONE
    return points(found.mean) + (f" ± {points(found.std)}" if found.std is not None else "")


def _difference(found: Estimate | None) -> str:
    if found is None:
        return NONE
    return signed(found.mean) + (f" ({interval_text(found.interval)})" if found.interval else "")


def _title(where: Where) -> str:
    """The name of a set of tasks as it stands at the beginning of a line."""
    return {**GROUP_NAMES, "all": "all tasks"}[where].capitalize()


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _line(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    """Inside a table."""
    return _line(text).replace("|", "\\|")
