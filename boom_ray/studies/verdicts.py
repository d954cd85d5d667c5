"""Does a claim hold? Judged over seeds and over tasks, and said with the numbers.

A difference between two ways of training has two kinds of noise. Another *seed* (other bags, other order of batches)
gives another model, and other *tasks* of the same kind give other scores. So a comparison is judged twice:

- over seeds: Student's interval of the difference, paired by seed, of the means over the tasks;
- over tasks: the bootstrap interval, Wilcoxon's signed-rank test and the sign-flip test of the differences by task of
  the means over seeds, as in `boom_ray.evaluation.compare`; all three must agree, because the interval is too narrow
  for few tasks.

``better`` is supported if the difference is above 0 beyond noise over seeds and over tasks. It is not supported if the
difference is below 0 beyond noise of either kind, or if even the upper end over seeds is below `MATTERS`.

``no_worse`` (non-inferiority) asks the same of the bound ``-margin`` in place of 0: supported if the difference is
above it beyond noise of both kinds, not supported if it is below it beyond noise of either.

Everything else is undecided. So is every comparison with one seed only, or whose seeds all give the same difference:
how much training varies is then not known. Arms with the same score on every task with every seed are no better and
no worse than each other. A claim is supported if all its comparisons are, not supported if one is not, else
undecided.

That all comparisons must bear a claim out guards against chance, so their number needs no correction there; the chance
that a claim is found unsupported by accident grows with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from boom_ray.config.study import ClaimConfig, Where
from boom_ray.evaluation import comparison
from boom_ray.evaluation.significance import Interval
from boom_ray.studies.contrasts import Contrast, Contrasts, TaskTests
from boom_ray.studies.estimates import WHERES, count_text
from boom_ray.studies.results import StudyResult

Status = Literal["supported", "not_supported", "undecided"]
MATTERS = 0.1
"""Points of 100 that a difference must be able to reach to matter."""


@dataclass(frozen=True)
class Part:
    """One comparison of a claim.

    Attributes:
        versus: the other arm.
        where: on which tasks.
        status: what comes of it.
        reason: why, in words.
        contrast: the numbers; None where the two could not be compared.
        tests: over tasks, of the claim's bound; None likewise.
    """

    versus: str
    where: Where
    status: Status
    reason: str
    contrast: Contrast | None = None
    tests: TaskTests | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a claim.

    Attributes:
        claim: the claim.
        status: whether it holds.
        parts: its comparisons, by arm and then by set of tasks.
    """

    claim: ClaimConfig
    status: Status
    parts: tuple[Part, ...]


def judge(claim: ClaimConfig, study: StudyResult, contrasts: Contrasts | None = None) -> Verdict:
    """Judge a claim by the rules at the head of this module.

    Args:
        claim: what is claimed.
        study: what was measured.
        contrasts: of the same study, to make each comparison once for many claims.

    Raises:
        EvaluationError: scores that cannot be compared, see `boom_ray.evaluation.compare.compare`.
    """
    found = contrasts or Contrasts(study)
    parts = tuple(_part(claim, versus, where, found) for versus in claim.versus for where in claim.where)
    return Verdict(claim, overall([part.status for part in parts]), parts)


def overall(statuses: Sequence[Status]) -> Status:
    """What follows for a claim from its comparisons."""
    if "not_supported" in statuses:
        return "not_supported"
    return "undecided" if "undecided" in statuses else "supported"


def _part(claim: ClaimConfig, versus: str, where: Where, contrasts: Contrasts) -> Part:
    if obstacle := contrasts.obstacle(claim.arm, versus):
        return Part(versus, where, "undecided", obstacle)
    contrast = contrasts.between(claim.arm, versus).get(where)
    if contrast is None:
        return Part(versus, where, "undecided", f"there are no common tasks {WHERES[where]}")
    margin = 0.0 if claim.says == "better" else claim.margin / 100
    tests = contrast.over_tasks(margin)
    status, reason = _decide(claim, contrast, tests, margin)
    return Part(versus, where, status, reason, contrast, tests)


def _decide(claim: ClaimConfig, contrast: Contrast, tests: TaskTests, margin: float) -> tuple[Status, str]:
    seeds, interval = contrast.seeds, contrast.seeds.interval
    if len(seeds.by_seed) < 2:
        return "undecided", "with one seed it is not known how much training varies"
    if contrast.identical:
        status: Status = "not_supported" if claim.says == "better" else "supported"
        return status, "the two have the same score on every task with every seed"
    if interval is None:
        return "undecided", "all seeds give the same difference, so it is not known how much training varies"
    sides = {"seeds": _side(interval, -margin), "tasks": tests.verdict}
    by = f"{count_text(claim.margin, 'point')} " if margin else ""
    small = claim.says == "better" and 100 * interval[1] < MATTERS
    if worse := [name for name, side in sides.items() if side == "worse"]:
        return "not_supported", f"{f'more than {by}' if by else ''}worse beyond noise over {_and(worse)}"
    if all(side == "better" for side in sides.values()):
        reason = f"being {by}worse is ruled out" if by else "better beyond noise"
        reason += " over seeds and tasks"
        return "supported", f"{reason}, if by less than {MATTERS:g} points" if small else reason
    if small:
        return "not_supported", f"even the upper end over seeds is below {MATTERS:g} points"
    return "undecided", _open(sides, by, contrast)


def _open(sides: Mapping[str, comparison.Verdict], by: str, contrast: Contrast) -> str:
    """Why a comparison is undecided: which kind of noise stands against it."""
    noise = _and([name for name, side in sides.items() if side == "tie"])
    reason = f"being {by}worse is not ruled out over {noise}" if by else f"within noise over {noise}"
    if sides["tasks"] == "tie" and contrast.too_few_tasks:
        count = len(contrast.tasks)
        reason += f"; {count} task{'s are' if count > 1 else ' is'} too few for these tests to show anything"
    return reason


def _side(interval: Interval, bound: float) -> comparison.Verdict:
    """On which side of a bound an interval lies."""
    if interval[0] > bound:
        return "better"
    return "worse" if interval[1] < bound else "tie"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
