from __future__ import annotations

import pytest

from boom_ray.config.study import ClaimConfig
from boom_ray.evaluation.significance import holm
from boom_ray.studies import tables
from boom_ray.studies.contrasts import Contrasts
from boom_ray.studies.estimates import BASE, student_interval
from boom_ray.studies.results import ArmResult, Cost, StudyResult
from boom_ray.studies.verdicts import judge
from tests.studies.planted import scores, study

TINY = study({"bls": [[0.5, 0.7], [0.6, 0.7]], "new": [[0.6, 0.6], [0.8, 0.6]], "gone": []}, base=[0.25, 0.5])


def test_every_score_is_a_row():
    rows = tables.score_rows(TINY)
    assert rows[0] == {
        "arm": BASE, "seed": None, "task": "t0", "type": "Retrieval", "group": "in_domain", "score": 0.25,
    }  # fmt: skip
    assert [(row["arm"], row["seed"], row["task"], row["score"]) for row in rows[2:]] == [
        ("bls", 0, "t0", 0.5),
        ("bls", 0, "t1", 0.7),
        ("bls", 1, "t0", 0.6),
        ("bls", 1, "t1", 0.7),
        ("new", 0, "t0", 0.6),
        ("new", 0, "t1", 0.6),
        ("new", 1, "t0", 0.8),
        ("new", 1, "t1", 0.6),
    ]


def test_the_overview_has_means_differences_and_costs():
    rows = {row["arm"]: row for row in tables.overview_rows(TINY)}
    assert list(rows) == [BASE, "bls", "new", "gone"]
    new = rows["new"]
    assert new["in_domain"] == pytest.approx(0.7)
    assert (new["in_domain_low"], new["in_domain_high"]) == pytest.approx(student_interval([0.6, 0.8]))
    assert new["in_domain_difference"] == pytest.approx(0.15)
    assert new["in_domain_difference_high"] == pytest.approx(student_interval([0.1, 0.2])[1])
    assert new["all_difference"] == pytest.approx(0.025)
    assert (new["full_runs"], new["shared_runs"], new["seconds"], new["members"]) == (2, 0.5, 120, 2)
    assert new["seeds"] == 2
    assert rows["bls"]["in_domain_difference"] is None and rows[BASE]["full_runs"] is None
    assert rows[BASE]["out_of_domain"] == 0.5 and rows[BASE]["out_of_domain_std"] is None
    assert rows["gone"]["all"] is None and rows["gone"]["seeds"] == 0
    assert len({tuple(row) for row in rows.values()}) == 1


def test_the_cost_is_the_mean_over_seeds():
    costs = (Cost(1.0, 10, 2, 0.5), Cost(2.0, 30, 2, 0.0))
    runs = tuple(ArmResult("a", seed, scores([0.5]), cost) for seed, cost in enumerate(costs))
    one = StudyResult("s", {"a": "", "b": ""}, (0, 1), "a", runs)
    assert tables.mean_cost(one, "a") == Cost(1.5, 20, 2, 0.25)
    assert tables.mean_cost(one, "b") is None and tables.mean_cost(one, BASE) is None


def test_types_are_by_group():
    one = study({"bls": [[0.1, 0.2, 0.3, 0.5, 0.6]], "new": [[0.2, 0.3, 0.4, 0.7, 0.8]]}, in_domain=4)
    assert tables.types(one, "in_domain") == {"Clustering": ["t2"], "Retrieval": ["t0", "t3"], "STS": ["t1"]}
    rows = tables.type_rows(one)
    assert [(row["arm"], row["group"], row["type"], row["tasks"]) for row in rows if row["type"] != "Clustering"] == [
        ("bls", "in_domain", "Retrieval", 2),
        ("new", "in_domain", "Retrieval", 2),
        ("bls", "in_domain", "STS", 1),
        ("new", "in_domain", "STS", 1),
        ("bls", "out_of_domain", "STS", 1),
        ("new", "out_of_domain", "STS", 1),
    ]
    assert [row["mean"] for row in rows if row["type"] == "Retrieval"] == pytest.approx([0.3, 0.45])


def test_tasks_have_their_spread_over_seeds():
    rows = [row for row in tables.task_rows(TINY) if row["arm"] == "new"]
    assert [(row["task"], row["group"]) for row in rows] == [("t0", "in_domain"), ("t1", "out_of_domain")]
    assert rows[0]["mean"] == pytest.approx(0.7) and rows[0]["mean_std"] == pytest.approx(0.02**0.5)
    assert rows[1]["mean_std"] == 0 and rows[1]["mean_low"] is None


def test_p_values_are_corrected_for_the_number_of_arms():
    gains = {"a": [0.01] * 7, "b": [0.05, -0.01, 0.02, 0.03, -0.02, 0.04, 0.015], "c": [-0.02] * 7}
    one = study(
        {"bls": [[0.5] * 7]} | {name: [[0.5 + gain for gain in own]] for name, own in gains.items()}, in_domain=7
    )
    contrasts = Contrasts(one)
    rows = tables.significance_rows(one, contrasts)
    assert [(row["where"], row["arm"]) for row in rows] == [("in_domain", name) for name in "abc"]
    for test in ("wilcoxon", "permutation"):
        raw = [row[test] for row in rows]
        assert raw[0] == pytest.approx(2 / 2**7)
        assert [row[f"{test}_holm"] for row in rows] == pytest.approx(holm(raw))
    assert [(row["better"], row["even"], row["worse"]) for row in rows] == [(7, 0, 0), (5, 0, 2), (0, 0, 7)]
    assert rows[2]["difference"] == pytest.approx(-0.02) and rows[2]["high"] == pytest.approx(-0.02)


def test_every_comparison_of_a_claim_is_a_row():
    claim = ClaimConfig(text="New is better.", arm="new", versus=("bls", "gone"), where=("in_domain",))
    first, second = tables.claim_rows([judge(claim, TINY)])
    assert (first["versus"], first["status"], first["part_status"]) == ("bls", "undecided", "undecided")
    assert first["difference"] == pytest.approx(0.15)
    assert (first["seeds_low"], first["seeds_high"]) == pytest.approx(student_interval([0.1, 0.2]))
    assert first["tasks_low"] is None and first["wilcoxon"] == 1
    assert second["reason"] == "gone has no result" and second["difference"] is None
    assert list(first) == list(second)
