"""Verdicts on claims in words, and the rules that they were reached by; numbers are points of 100."""

from __future__ import annotations

from boom_ray.evaluation.comparison_text import p_text
from boom_ray.evaluation.significance import Interval
from boom_ray.studies.estimates import LEVEL, WHERES, count_text
from boom_ray.studies.verdicts import MATTERS, Part, Status, Verdict

STATUS_NAMES: dict[Status, str] = {
    "supported": "supported",
    "not_supported": "not supported",
    "undecided": "undecided",
}
RULES = (
    f"Seeds and tasks are judged apart. Over seeds: Student's {100 * LEVEL:g} % interval of the difference between two "
    "arms, paired by seed, of their means over the tasks. Over tasks: bootstrap interval, Wilcoxon's signed-rank test "
    "and sign-flip test of the differences by task, of the means over seeds, which must all agree. *Better* is "
    "supported if the difference is above 0 beyond noise of both kinds; it is not supported if the difference is below "
    f"0 beyond noise of either kind, or if even the upper end over seeds is below {MATTERS:g} points. *No worse* asks "
    "the same of minus the margin in place of 0, and its tests are of that bound. All else is undecided, and so is "
    "everything with one seed, or with seeds that all give the same difference. Arms with the same score on every task "
    "with every seed are no better and no worse. A claim is supported if all its comparisons are, not supported if one "
    "is not."
)


def paragraph(verdict: Verdict) -> str:
    """A claim, whether it holds, and why, as one paragraph of Markdown."""
    claim = verdict.claim
    others = " and ".join(f"`{name}`" for name in claim.versus)
    means = f"better than {others}"
    if claim.says == "no_worse":
        means = f"no worse than {others} by more than {count_text(claim.margin, 'point')}"
    head = f"**{claim.text.rstrip('.!')}: {STATUS_NAMES[verdict.status]}.** Claimed is that `{claim.arm}` is {means}."
    return " ".join([head, *map(part_text, verdict.parts)])


def part_text(part: Part) -> str:
    """One comparison in a sentence: what comes of it and why, then the numbers."""
    found = f"Against `{part.versus}` {WHERES[part.where]}: {STATUS_NAMES[part.status]}, {part.reason}"
    if part.contrast is None or part.tests is None:
        return f"{found}."
    one, tests = part.contrast, part.tests
    numbers = [f"{signed(one.seeds.mean)} points, {points(one.second)} against {points(one.first)}"]
    numbers += [
        f"{100 * LEVEL:g} % over {count_text(count, noise)} {interval_text(interval)}"
        for count, noise, interval in (
            (len(one.seeds.by_seed), "seed", one.seeds.interval),
            (len(one.tasks), "task", tests.interval),
        )
        if interval
    ]
    if len(one.tasks) > 1:
        numbers.append(f"Wilcoxon {p_text(tests.wilcoxon)}, sign-flip {p_text(tests.permutation)}")
    counts = one.aggregate
    numbers.append(f"single tasks {counts.wins} better, {counts.ties} even, {counts.losses} worse")
    return f"{found} ({'; '.join(numbers)})."


def points(value: float) -> str:
    """A score in points of 100."""
    return f"{100 * value:.2f}"


def signed(value: float) -> str:
    """A difference in points of 100, with its sign; one that rounds to nothing has none."""
    text = f"{100 * value:+.2f}"
    return "0.00" if text in {"+0.00", "-0.00"} else text


def interval_text(interval: Interval | None) -> str:
    """The ends of an interval of a difference in points of 100; empty without one."""
    return f"{signed(interval[0])} to {signed(interval[1])}" if interval else ""
