from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config.study import ClaimConfig
from boom_ray.studies import contrasts
from boom_ray.studies.contrasts import Contrasts
from boom_ray.studies.verdicts import judge, overall
from tests.studies.planted import study

WORDS = ("supported", "undecided", "not_supported")
NOISE = (-0.001, 0.0, 0.001)
"""Of three seeds: the interval reaches 0.0025 to both sides."""


@pytest.fixture(scope="module", autouse=True)
def fast():
    """Exact tests still are: there are at most 256 combinations of signs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrasts, "RESAMPLES", 1000)
        yield


def claim(says="better", where=("in_domain",), versus=("bls",), **more):
    return ClaimConfig(text="It is.", arm="new", versus=versus, where=where, says=says, **more)


def against(gains, noise=NOISE, level=0.5):
    """A study of ``new`` against ``bls``, with gains by task and noise by seed, all tasks in domain."""
    return study(
        {
            "bls": [[level] * len(gains)] * len(noise),
            "new": [[level + gain + one for gain in gains] for one in noise],
        },
        in_domain=len(gains),
    )


def judged(gains, noise=NOISE, **options):
    (part,) = judge(claim(**options), against(gains, noise)).parts
    return part.status, part.reason


def test_better_needs_seeds_and_tasks():
    assert judged([0.01] * 6) == ("supported", "better beyond noise over seeds and tasks")
    assert judged([0.01] * 6, noise=(-0.02, 0, 0.02)) == ("undecided", "within noise over seeds")
    assert judged([0.06, -0.02, 0.05, -0.01, 0.03, 0.01]) == ("undecided", "within noise over tasks")
    assert judged([0.06, -0.06] * 3, noise=(-0.02, 0, 0.02)) == ("undecided", "within noise over seeds and tasks")


def test_worse_beyond_either_noise_is_not_supported():
    assert judged([-0.01] * 6) == ("not_supported", "worse beyond noise over seeds and tasks")
    assert judged([-0.01] * 6, noise=(-0.02, 0, 0.02)) == ("not_supported", "worse beyond noise over tasks")
    assert judged([-0.06, 0.02, -0.05, 0.01, -0.03, -0.01]) == ("not_supported", "worse beyond noise over seeds")


def test_a_gain_that_cannot_matter_is_not_supported_unless_it_is_real():
    tiny = tuple(one / 10 for one in NOISE)  # the interval reaches 0.00025 to both sides
    mixed = [0.02, -0.02, 0.01, -0.01, 0.03, -0.029]
    assert judged(mixed, tiny) == ("not_supported", "even the upper end over seeds is below 0.1 points")
    assert judged(mixed, (-0.0005, 0, 0.0005)) == ("undecided", "within noise over seeds and tasks")
    assert judged([0.0005] * 6, tiny) == (
        "supported",
        "better beyond noise over seeds and tasks, if by less than 0.1 points",
    )


def test_no_worse_asks_about_the_margin():
    assert judged([-0.001] * 6, says="no_worse") == (
        "supported",
        "being 0.5 points worse is ruled out over seeds and tasks",
    )
    assert judged([-0.004] * 6, says="no_worse") == ("undecided", "being 0.5 points worse is not ruled out over seeds")
    assert judged([0.03, -0.03, 0.02, -0.02, 0.01, -0.01], says="no_worse") == (
        "undecided",
        "being 0.5 points worse is not ruled out over tasks",
    )
    assert judged([-0.01] * 6, says="no_worse") == (
        "not_supported",
        "more than 0.5 points worse beyond noise over seeds and tasks",
    )
    assert judged([-0.01] * 6, says="no_worse", margin=1.5)[0] == "supported"


def test_a_difference_at_the_margin_is_undecided_whatever_rounding_does():
    assert judged([-0.01] * 6, says="no_worse", margin=1) == (
        "undecided",
        "being 1 point worse is not ruled out over seeds and tasks",
    )


def test_no_worse_without_a_margin_is_better_except_for_what_cannot_matter():
    for gains in ([0.01] * 6, [-0.01] * 6, [0.06, -0.02, 0.05, -0.01, 0.03, 0.01]):
        assert judged(gains, says="no_worse", margin=0) == judged(gains)
    tiny = tuple(one / 10 for one in NOISE)
    assert judged([0.02, -0.02] * 3, tiny, says="no_worse", margin=0)[0] == "undecided"


@pytest.mark.parametrize("says", ["better", "no_worse"])
@pytest.mark.parametrize("gain", [-0.3, 0.0, 0.3])
def test_one_seed_decides_nothing(says, gain):
    assert judged([gain] * 8, noise=(0,), says=says) == (
        "undecided",
        "with one seed it is not known how much training varies",
    )


def test_seeds_that_change_nothing_decide_nothing():
    same = "all seeds give the same difference, so it is not known how much training varies"
    assert judged([0.1] * 6, noise=(0, 0, 0)) == ("undecided", same)


def test_arms_that_are_the_same_are_no_better_and_no_worse():
    same = "the two have the same score on every task with every seed"
    assert judged([0.0] * 2, noise=(0, 0)) == ("not_supported", same)
    assert judged([0.0] * 2, noise=(0, 0), says="no_worse") == ("supported", same)


@pytest.mark.parametrize(("tasks", "words"), [(1, "1 task is"), (5, "5 tasks are")])
def test_few_tasks_cannot_show_anything_and_say_so(tasks, words):
    status, reason = judged([0.1] * tasks)
    assert status == "undecided"
    assert reason == f"within noise over tasks; {words} too few for these tests to show anything"
    assert judged([-0.1] * tasks) == ("not_supported", "worse beyond noise over seeds")


def test_a_claim_is_as_good_as_its_comparisons():
    one = study(
        {
            "bls": [[0.5 + noise] * 12 for noise in (0.0, 0.001, 0.0)],
            "new": [[0.6 + noise] * 6 + [0.4 + noise] * 6 for noise in NOISE],
            "bad": [[0.2 + noise] * 12 for noise in NOISE[::-1]],
        }
    )
    found = judge(claim(versus=("bls", "bad"), where=("in_domain", "out_of_domain")), one)
    assert [(part.versus, part.where, part.status) for part in found.parts] == [
        ("bls", "in_domain", "supported"),
        ("bls", "out_of_domain", "not_supported"),
        ("bad", "in_domain", "supported"),
        ("bad", "out_of_domain", "supported"),
    ]
    assert found.status == "not_supported"
    assert judge(claim(versus=("bad",), where=("in_domain", "out_of_domain", "all")), one).status == "supported"


def test_the_worst_comparison_counts():
    assert overall(["supported", "supported"]) == "supported"
    assert overall(["supported", "undecided"]) == "undecided"
    assert overall(["undecided", "not_supported", "supported"]) == "not_supported"


def test_what_cannot_be_compared_is_undecided():
    one = study({"bls": [[0.5] * 6] * 2, "new": []}, in_domain=6)
    assert judge(claim(), one).parts[0].reason == "new has no result"
    one = against([0.1] * 6)
    (part,) = judge(claim(where=("out_of_domain",)), one).parts
    assert (part.status, part.reason) == ("undecided", "there are no common tasks out of domain")
    assert part.contrast is None and part.tests is None


def test_comparisons_that_were_made_are_used():
    one = against([0.01] * 6)
    made = Contrasts(one)
    (part,) = judge(claim(), one, made).parts
    assert part.contrast is made.between("new", "bls")["in_domain"]
    assert judge(claim(), one) == judge(claim(), one, made)


GAIN = st.integers(-30, 30).map(lambda n: n / 1000)
GAINS = st.one_of(
    st.lists(GAIN, min_size=1, max_size=8),
    st.builds(lambda mean, rest: [mean + one / 10 for one in rest], GAIN, st.lists(GAIN, min_size=6, max_size=8)),
)
SEEDS = st.lists(st.integers(-9, 9).map(lambda n: n / 3000), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(GAINS, SEEDS)
def test_swapping_the_arms_turns_the_verdict(gains, noise):
    status, _ = judged(gains, noise)
    turned, _ = judged([-gain for gain in gains], [-one for one in noise])
    swapped = ClaimConfig(text="x", arm="bls", versus=("new",), where=("in_domain",))
    assert judge(swapped, against(gains, noise)).status == turned
    assert "supported" not in {status, turned} or {status, turned} == {"supported", "not_supported"}


@settings(max_examples=25, deadline=None)
@given(GAINS, SEEDS, st.sampled_from([0.5, 1.0, 2.0]))
def test_what_is_better_is_no_worse_and_a_wider_margin_allows_more(gains, noise, margin):
    order = [
        judged(gains, noise)[0],
        judged(gains, noise, says="no_worse", margin=margin)[0],
        judged(gains, noise, says="no_worse", margin=2 * margin)[0],
    ]
    assert [WORDS.index(one) for one in order] == sorted((WORDS.index(one) for one in order), reverse=True)


def test_claims_are_rarely_supported_where_there_is_nothing():
    """Arms without any difference: of 5 % in each direction over seeds few also pass the tests over tasks."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        runs = rng.normal(0.5, 0.01, (2, 3, 8)) + rng.normal(0, 0.01, (2, 1, 8))
        one = study({"bls": runs[0].tolist(), "new": runs[1].tolist()}, in_domain=8)
        found.append(judge(claim(), one).status)
    assert found.count("supported") <= 3
