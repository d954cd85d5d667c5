from __future__ import annotations

import pytest

from boom_ray.config.study import ClaimConfig
from boom_ray.studies.verdict_text import interval_text, paragraph, points, signed
from boom_ray.studies.verdicts import judge
from tests.studies.planted import study


def told(says="better", seeds=2, tasks=6, versus=("bls",), text="New is better.", **more):
    shifts = (0.0, 0.01)[:seeds]
    one = study(
        {"bls": [[0.5] * tasks] * seeds, "new": [[0.55 + shift] * tasks for shift in shifts], "gone": []},
        in_domain=tasks,
    )
    claim = ClaimConfig(text=text, arm="new", versus=versus, where=("in_domain",), says=says, **more)
    return paragraph(judge(claim, one))


def test_a_paragraph_has_the_verdict_the_reason_and_all_numbers():
    # 5 and 6 points: the mean 5.5, the error 0.5, and Student's t 12.706
    assert told() == (
        "**New is better: undecided.** Claimed is that `new` is better than `bls`. Against `bls` in domain: undecided, "
        "within noise over seeds (+5.50 points, 55.50 against 50.00; 95 % over 2 seeds -0.85 to +11.85; 95 % over 6 "
        "tasks +5.50 to +5.50; Wilcoxon p = 0.031, sign-flip p = 0.031; single tasks 6 better, 0 even, 0 worse)."
    )


def test_a_margin_is_said():
    text = told(says="no_worse", margin=1, text="New is as good!")
    assert text.startswith(
        "**New is as good: supported.** Claimed is that `new` is no worse than `bls` by more than 1 point. Against "
        "`bls` in domain: supported, being 1 point worse is ruled out over seeds and tasks (+5.50 points"
    )


def test_numbers_that_are_not_known_are_left_out():
    text = told(seeds=1, tasks=1)
    assert text.endswith(
        "undecided, with one seed it is not known how much training varies (+5.00 points, 55.00 against 50.00; single "
        "tasks 1 better, 0 even, 0 worse)."
    )


def test_what_could_not_be_compared_is_said():
    text = told(versus=("bls", "gone"))
    assert "is better than `bls` and `gone`." in text
    assert text.endswith(" Against `gone` in domain: undecided, gone has no result.")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "+1.23"), (-0.5, "-50.00"), (0.00004, "0.00"), (-0.00004, "0.00"), (0.0, "0.00")]
)
def test_differences_have_a_sign_unless_they_round_to_nothing(value, text):
    assert signed(value) == text


def test_numbers_are_points_of_100():
    assert points(0.61234) == "61.23"
    assert interval_text((-0.01, 0.02)) == "-1.00 to +2.00" and interval_text(None) == ""
