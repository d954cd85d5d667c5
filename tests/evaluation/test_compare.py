from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from boom_ray.errors import EvaluationError
from boom_ray.evaluation.compare import TaskScore, compare, ranks, rows, summary, to_json
from boom_ray.evaluation.significance import bootstrap_interval, holm, sign_flip, welch, wilcoxon

SWAPPED = {"better": "worse", "worse": "better", "tie": "tie"}


def score(task, value, type_="STS", group="in_domain", metric="cosine_spearman"):
    return TaskScore(task, type_, group, value, None, metric)


def model(**values):
    """One run without values per query: a and b are STS in domain, c is Retrieval and d STS out of domain."""
    kinds = {"a": ("STS", "in_domain"), "b": ("STS", "in_domain"), "c": ("Retrieval", "out_of_domain")}
    return {task: score(task, value, *kinds.get(task, ("STS", "out_of_domain"))) for task, value in values.items()}


def asked(queries, task="q", group="in_domain"):
    """A task with values per query; its score is their mean over subsets."""
    subsets = {}
    for key, value in queries.items():
        subsets.setdefault(key.split("/")[0], []).append(value)
    value = float(np.mean([np.mean(values) for values in subsets.values()]))
    return TaskScore(task, "Retrieval", group, value, queries, "ndcg_at_10")


def simulated(gain, tasks=6, queries=80, seed=0):
    """Models that differ by ``gain`` on all even tasks and by nothing but noise on the others."""
    rng = np.random.default_rng(seed)
    found = {}
    for task in range(tasks):
        level = np.random.default_rng([1, task]).uniform(0.3, 0.6, queries)
        values = level + gain * (task % 2 == 0) + rng.normal(0, 0.02, queries)
        group = "in_domain" if task < tasks // 2 else "out_of_domain"
        found[f"t{task}"] = asked({f"default/{i}": float(v) for i, v in enumerate(values)}, f"t{task}", group)
    return found


def flips(differences):
    """Two-sided p-value by all combinations of signs."""
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
    return float(np.mean([mean >= abs(sum(differences)) - 1e-12 for mean in means]))


def test_holm_is_that_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_few_signs_are_all_tried(values):
    eighths = np.array(values) / 8  # exact, so that rounding breaks no tie
    assert sign_flip([eighths], 1000, 1) == pytest.approx(flips(eighths))


def test_many_signs_are_sampled():
    differences = np.random.default_rng(5).normal(0.35, 1, 14)
    assert sign_flip([differences], 10_000, 1) == pytest.approx(flips(differences), abs=0.015)
    assert sign_flip([np.full(40, 0.1)], 999, 1) == 1 / 1000, "p is never 0"


def test_subsets_weigh_the_same_when_signs_are_flipped():
    strata = [np.array([0.3, -0.1]), np.array([0.2, 0.1, 0.15, -0.05])]
    assert sign_flip(strata, 1000, 1) == pytest.approx(flips([0.15, -0.05, 0.05, 0.025, 0.0375, -0.0125]))


def test_the_permutation_test_errs_as_often_as_it_says():
    rng = np.random.default_rng(2)
    found = [sign_flip([rng.normal(size=30)], 300, trial) < 0.1 for trial in range(300)]
    assert np.mean(found) == pytest.approx(0.1, abs=0.045)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(level):
    rng = np.random.default_rng(3)
    found = [bootstrap_interval([rng.exponential(0.2, 100)], level, 400, trial) for trial in range(300)]
    assert np.mean([low <= 0.2 <= high for low, high in found]) == pytest.approx(level, abs=0.045)


def test_each_subset_is_resampled_by_itself():
    rng = np.random.default_rng(4)
    strata = [rng.normal(5, 0.1, 400), rng.normal(0, 0.2, 100)]
    low, high = bootstrap_interval(strata, 0.95, 2000, 1)
    error = math.sqrt(sum(stratum.var() / len(stratum) for stratum in strata)) / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1), "how far subsets lie apart is no noise"
    assert (low + high) / 2 == pytest.approx(np.mean([stratum.mean() for stratum in strata]), abs=0.003)


def test_what_does_not_vary_has_no_interval():
    assert bootstrap_interval([np.array([0.1]), np.array([0.3])], 0.95, 100, 1) is None
    assert bootstrap_interval([np.array([0.1]), np.array([0.3, 0.3])], 0.95, 100, 1) == pytest.approx((0.2, 0.2))


def test_wilcoxon_of_six_gains_is_two_of_64():
    assert wilcoxon(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 64)
    assert wilcoxon(np.zeros(4)) == 1.0


def test_welch_by_hand():
    # means 2 and 6, variances 1 and 4: t = 4 / sqrt(5 / 3), df = (5 / 3)² / ((1 / 9 + 16 / 9) / 2)
    expected = 2 * student.sf(4 / math.sqrt(5 / 3), (25 / 9) / (17 / 18))
    assert welch([1.0, 2, 3], [4.0, 6, 8]) == pytest.approx(expected)
    assert welch([1.0], [1.0, 2.0]) is None and welch([1.0, 1.0], [2.0, 2.0]) is None


def test_means_and_verdicts_by_hand():
    found = compare(model(a=0.5, b=0.6, c=0.3, d=0.8), model(a=0.6, b=0.6004, c=0.1, d=0.9), resamples=200)
    assert [task.verdict for task in found.tasks] == ["better", "tie", "worse", "better"]
    assert not any(task.tested or task.p is not None or task.interval for task in found.tasks)
    one = found.overall
    assert (one.wins, one.ties, one.losses) == (2, 1, 1)
    assert dataclasses.astuple(one.mean_task) == pytest.approx((0.55, 0.5501, 0.0001))
    assert dataclasses.astuple(one.types["STS"]) == pytest.approx((1.9 / 3, 2.1004 / 3, 0.2004 / 3))
    assert one.mean_type.difference == pytest.approx((0.2004 / 3 - 0.2) / 2)
    assert one.permutation == pytest.approx(flips([0.1, 0.0004, -0.2, 0.1]))
    assert found.groups["in_domain"].mean_task.difference == pytest.approx(0.0502)
    assert found.groups["out_of_domain"].mean_type.difference == pytest.approx(-0.05)


def test_the_threshold_of_ties_is_an_option():
    assert compare(model(a=0.5), model(a=0.52), tie=0.03).tasks[0].verdict == "tie"


def test_a_subset_counts_as_much_as_another():
    first = {"en/1": 0.2, "en/2": 0.4, "de/1": 0.5, "de/2": 0.6, "de/3": 0.7, "de/4/x": 0.6}
    second = first | {"en/1": 0.3, "de/4/x": 0.9}
    found = compare({"q": asked(first)}, {"q": asked(second)}, resamples=1000).tasks[0]
    assert found.difference == pytest.approx((0.1 / 2 + 0.3 / 4) / 2)
    assert found.p == pytest.approx(flips([0.1 / 2, 0.3 / 4]))
    assert found.queries == 6 and found.tested


def test_a_clear_gain_is_found_and_noise_is_not():
    found = compare(simulated(0.0), simulated(0.03, seed=9), resamples=1000)
    assert [task.verdict for task in found.tasks] == ["better", "tie"] * 3
    for task in found.tasks:
        low, high = task.interval
        assert low < task.difference < high and task.p <= task.p_holm
    assert found.overall.verdict == "tie", "half of six tasks is not enough"
    assert compare(simulated(0.0), {k: v for k, v in simulated(0.03).items() if k in ("t0", "t2")}).overall.tasks == 2


def test_a_gain_on_every_task_is_beyond_noise():
    first = {f"t{i}": score(f"t{i}", 0.5) for i in range(12)}
    second = {task: score(task, 0.51 + 0.001 * place) for place, task in enumerate(first)}
    found = compare(first, second, resamples=500).overall
    assert found.verdict == "better" and found.interval[0] > 0
    assert found.wilcoxon == pytest.approx(2 / 2**12)


def test_few_tasks_are_never_beyond_noise():
    found = compare(model(a=0.1, b=0.1, c=0.1, d=0.1), model(a=0.9, b=0.8, c=0.7, d=0.6))
    assert found.overall.interval[0] > 0 and found.overall.verdict == "tie"
    assert "4 tasks are too few" in summary(found)


@settings(max_examples=12, deadline=None)
@given(st.floats(-0.03, 0.03), st.integers(0, 99), st.integers(0, 3))
def test_swapping_the_models_swaps_the_verdicts_and_nothing_else(gain, seed, untested):
    second = simulated(gain, queries=30, seed=seed)
    second |= {f"t{i}": dataclasses.replace(second[f"t{i}"], queries=None) for i in range(untested)}
    there = compare(simulated(0, queries=30, seed=50), second, resamples=200)
    back = compare(second, simulated(0, queries=30, seed=50), ("B", "A"), resamples=200)
    for one, other in zip(there.tasks, back.tasks, strict=True):
        assert (one.p, one.p_holm, SWAPPED[one.verdict]) == (other.p, other.p_holm, other.verdict)
        assert one.difference == -other.difference
    for one, other in [*zip(there.tasks, back.tasks, strict=True), (there.overall, back.overall)]:
        assert (one.interval is None) == (other.interval is None)
        if one.interval:
            assert one.interval == pytest.approx([-end for end in reversed(other.interval)], abs=1e-12)
    one, other = there.overall, back.overall
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.wilcoxon == other.wilcoxon and one.permutation == other.permutation
    assert one.verdict == SWAPPED[other.verdict]


def test_a_model_ties_with_itself_everywhere():
    found = compare(simulated(0), simulated(0), resamples=200)
    assert {task.verdict for task in found.tasks} == {"tie"} and {task.p for task in found.tasks} == {1.0}
    assert {task.interval for task in found.tasks} == {(0.0, 0.0)}
    assert found.overall.verdict == "tie" and found.overall.ties == 6
    assert "B and A are even" in summary(found)


def test_order_and_company_of_tasks_do_not_matter():
    first, second = simulated(0.0), simulated(0.01, seed=4)
    turned = {
        task: dataclasses.replace(second[task], queries=dict(reversed(second[task].queries.items())))
        for task in reversed(second)
    }
    found = compare(first, second, resamples=300)
    assert compare(first, turned, resamples=300) == found
    alone = compare({"t3": first["t3"]}, second, resamples=300).tasks[0]
    assert dataclasses.replace(found.tasks[3], p_holm=alone.p_holm) == alone


def test_only_what_all_runs_have_is_compared_and_the_rest_is_named():
    runs = [model(a=0.5, b=0.5, x=0.1), model(a=0.7, y=0.1)]
    found = compare(runs, model(a=0.6, b=0.6, z=0.2))
    assert [task.task for task in found.tasks] == ["a"]
    assert (found.only_first, found.only_second, found.incomplete) == (("x", "y"), ("z",), ("b",))
    for line in ("only A has them: x, y.", "only B has them: z.", "not all runs have them: b."):
        assert f"Left out, because {line}" in summary(found)


def test_runs_are_averaged_and_their_spread_is_reported():
    first = [model(a=0.4, b=0.2), model(a=0.6, b=0.2), model(a=0.5, b=0.5)]
    second = [model(a=0.5, b=0.5), model(a=0.7, b=0.7)]
    found = compare(first, second)
    assert (found.tasks[0].first, found.tasks[0].second) == pytest.approx((0.5, 0.6))
    assert found.tasks[0].first_std == pytest.approx(0.1)
    assert found.tasks[0].second_std == pytest.approx(math.sqrt(0.02))
    assert found.runs.first == pytest.approx((0.3, 0.4, 0.5)) and found.runs.first_std == pytest.approx(0.1)
    assert found.runs.welch == pytest.approx(welch([0.3, 0.4, 0.5], [0.5, 0.7]))
    single = compare(first, second[0]).runs
    assert single.second_std is None and single.welch is None and single.first_std == pytest.approx(0.1)


def test_queries_are_averaged_over_runs_and_paired():
    runs = [{"q": asked({"s/1": 0.2, "s/2": 0.4, "s/3": 0.9})}, {"q": asked({"s/1": 0.4, "s/2": 0.4, "s/4": 0.9})}]
    found = compare(runs, {"q": asked({"s/1": 0.5, "s/2": 0.6, "s/3": 0.9})}).tasks[0]
    assert (found.queries, found.unpaired) == (2, 2)
    assert found.p == pytest.approx(flips([0.2, 0.2]))


def test_queries_of_one_side_only_test_nothing():
    found = compare(
        {"q": asked({"s/1": 0.2, "s/2": 0.4})}, {"q": dataclasses.replace(asked({"s/1": 0.5}), queries=None)}
    )
    assert not found.tasks[0].tested and found.tasks[0].verdict == "better" and found.tasks[0].unpaired == 2


def test_a_gain_on_common_queries_proves_nothing_if_the_scores_say_the_opposite():
    common = {f"s/{i}": 0.5 for i in range(12)}
    gained = {key: value + 0.1 for key, value in common.items()}
    found = compare({"q": asked(common | {"s/x": 0.9})}, {"q": asked(gained | {f"s/y{i}": 0.0 for i in range(9)})})
    assert found.tasks[0].p < 0.001 and found.tasks[0].difference < 0 and found.tasks[0].verdict == "tie"


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (model(a=0.1), model(b=0.1), {}, "A and B have no task in common: a against b"),
        (model(a=0.1), {}, {}, "a against none"),
        ([], model(a=0.1), {}, "A has no runs"),
        (model(a=0.1), {"a": score("a", 0.1, "Retrieval")}, {}, "type Retrieval in one evaluation and STS"),
        (model(a=0.1), {"a": score("a", 0.1, group="out_of_domain")}, {}, "a has the group"),
        (model(a=0.1), {"a": score("a", 0.1, metric="map")}, {}, "a has the metric cosine_spearman"),
        (model(a=0.1), model(a=50.0), {}, "a has the score 50; scores lie between -1 and 1"),
        (model(a=math.nan), model(a=0.5), {}, "a has the score nan"),
        (model(a=0.1), model(a=0.2), {"names": ("x", "x")}, "Both models are called x"),
        (model(a=0.1), model(a=0.2), {"level": 95}, "level is 95"),
        (model(a=0.1), model(a=0.2), {"resamples": 0}, "resamples is 0"),
        (model(a=0.1), model(a=0.2), {"tie": -1.0}, "tie is -1"),
        (simulated(0), simulated(0), {"resamples": 100}, "set resamples to at least 120"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_an_error(first, second, options, message):
    with pytest.raises(EvaluationError, match=message):
        compare(first, second, **options)


def test_queries_must_be_those_of_the_main_metric():
    wrong = dataclasses.replace(asked({"s/1": 0.2, "s/2": 0.4}), value=0.5)
    with pytest.raises(EvaluationError, match=r"q has the score 0.5000, but its 2 queries average 0.3000.*ndcg_at_10"):
        compare({"q": wrong}, {"q": wrong})
    with pytest.raises(EvaluationError, match="the value of query s/2 is not a finite number"):
        compare({"q": dataclasses.replace(wrong, queries={"s/1": 0.5, "s/2": math.nan})}, {"q": wrong})


def test_rows_are_flat_and_json_is_json():
    found = compare(simulated(0.0), simulated(0.03), ("base", "new"), resamples=200)
    table = rows(found)
    assert len(table) == 6 and all(list(row) == list(table[0]) for row in table)
    assert table[0]["score new"] - table[0]["score base"] == pytest.approx(table[0]["difference"])
    assert all(isinstance(value, str | float | int | None) for row in table for value in row.values())
    values = to_json(found)
    assert json.loads(json.dumps(values)) == values
    assert values["overall"]["mean_task"]["difference"] == found.overall.mean_task.difference


def test_the_summary_says_what_a_reviewer_needs():
    found = compare([model(a=0.5, b=0.6, c=0.3)] * 2, model(a=0.49, b=0.594, c=0.285), ("base", "new"))
    low, high = (100 * end for end in found.overall.interval)
    assert summary(found).splitlines() == [
        f"new is 1.03 points worse than base in the mean over 3 tasks (95 % interval {low:.2f} to {high:.2f}; "
        "Wilcoxon p = 0.25, sign-flip p = 0.25): not beyond noise; 3 tasks are too few for these tests to show any "
        "difference.",
        "In domain, new is 0.80 points worse than base in the mean over 2 tasks (95 % interval -1.00 to -0.60; "
        "Wilcoxon p = 0.5, sign-flip p = 0.5): not beyond noise; 2 tasks are too few for these tests to show any "
        "difference.",
        "Out of domain, new is 1.50 points worse than base on the one task; whether that would hold on others, one "
        "task cannot tell.",
        "By task type, in points: Retrieval -1.50, STS -0.80; in the mean over types -1.15.",
        "3 tasks without values per query, by the score alone (ties up to 0.05 points): new is worse on 3 (a, b, c).",
        "Seeds: base 2 runs with a standard deviation of 0.00 points, new 1 run.",
    ]  # fmt: skip


def test_ranks_by_hand():
    best, middle, last = ranks(
        {"x": model(a=0.5, b=0.6, c=0.3), "y": model(a=0.7, b=0.6), "z": [model(a=0.5, b=0.8, c=0.5)] * 2}
    )
    assert [row["model"] for row in (best, middle, last)] == ["z", "y", "x"]
    # points of a: x 0.5, y 2, z 0.5; b: x 0.5, y 0.5, z 2; c: x 1, z 2
    assert [row["borda_rank"] for row in (best, middle, last)] == [1, 2, 3]
    assert best["mean_rank"] == pytest.approx((2.5 + 1 + 1) / 3)
    assert (best["mean_task"], best["mean_type"]) == pytest.approx((0.6, (0.65 + 0.5) / 2))
    assert (best["in_domain"], best["out_of_domain"], best["STS"]) == pytest.approx((0.65, 0.5, 0.65))
    assert middle["in_domain"] == pytest.approx(0.65) and middle["Retrieval"] is middle["mean_task"] is None
    ours = dataclasses.replace(asked({"s/1": 0.2, "s/2": 0.4}), value=0.5)
    assert ranks({"x": {"q": ours}})[0]["mean_task"] == 0.5, "only tests look at queries"
    with pytest.raises(EvaluationError, match="nothing to rank"):
        ranks({})


def test_borda_ranks_are_those_of_mtebs_leaderboard():
    import polars as pl
    from mteb.benchmarks._create_table import _get_borda_rank

    values = np.random.default_rng(6).integers(0, 6, (9, 7)) / 10  # with ties
    tasks = [f"t{i}" for i in range(7)]
    missing = {(2, 3), (5, 0), (5, 1)}
    models = {
        f"m{i}": {task: score(task, float(values[i, j])) for j, task in enumerate(tasks) if (i, j) not in missing}
        for i in range(9)
    }
    columns = {task: [run[task].value if task in run else None for run in models.values()] for task in tasks}
    expected = pl.DataFrame(columns).select(_get_borda_rank(tasks)).to_series().to_list()
    assert {row["model"]: row["borda_rank"] for row in ranks(models)} == dict(zip(models, expected, strict=True))
