"""Gain, forgetting and cost as rows: closed forms."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from boom_ray.evaluation.comparison import TaskScore
from boom_ray.flows.update.plan import ELSEWHERE, NEW, NEW_ELSEWHERE, OLD
from boom_ray.flows.update.report import (
    Cost,
    changes,
    comparisons,
    cost_sentence,
    costs,
    gains,
    group_rows,
    task_rows,
)

GROUPS = {OLD: ("a", "b"), ELSEWHERE: ("c",), NEW: ("d",)}
VALUES = {
    "before": {"a": 0.5, "b": 0.7, "c": 0.4, "d": 0.1},
    "update": {"a": 0.3, "b": 0.5, "c": 0.4, "d": 0.6},
    "after": {"a": 0.48, "b": 0.71, "c": 0.45, "d": 0.5},
}
FULL = VALUES | {"full-retraining": {"a": 0.5, "b": 0.7, "c": 0.4, "d": 0.55}}


def scored(values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, TaskScore]]:
    return {
        model: {task: TaskScore(task, "STS", "in_domain", value) for task, value in own.items()}
        for model, own in values.items()
    }


def test_a_row_per_task() -> None:
    rows = task_rows(VALUES, GROUPS)
    assert [row["task"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[0] == {
        **{"group": OLD, "task": "a", "before": 50.0, "update": 30.0, "after": 48.0, "after - before": -2.0}
    }
    assert task_rows(FULL, GROUPS)[3]["after - full-retraining"] == -5.0


def test_a_row_per_group() -> None:
    rows = {row["group"]: row for row in group_rows(VALUES, GROUPS)}
    assert rows[OLD]["tasks"] == "2"
    assert (rows[OLD]["before"], rows[OLD]["after"], rows[OLD]["after - before"]) == (60.0, 59.5, -0.5)
    assert rows[NEW]["after - before"] == 40.0


def test_a_score_that_is_missing_is_no_zero() -> None:
    failed = VALUES | {"after": {"b": 0.71, "c": 0.45, "d": 0.5}}
    assert task_rows(failed, GROUPS)[0]["after"] is None
    assert task_rows(failed, GROUPS)[0]["after - before"] is None
    assert group_rows(failed, GROUPS)[0]["after"] is None
    assert [task for task, _, _ in changes(failed, GROUPS)] == ["b", "c", "d"]
    assert gains({"before": {}, "after": {}}, GROUPS) == {}


def test_gain_and_forgetting_have_their_signs() -> None:
    found = gains(VALUES, GROUPS)
    assert found == pytest.approx(
        {"forgetting/old_in-domain": 0.005, "forgetting/old_out-of-domain": -0.05, "gain/new": 0.4}
    )


def test_new_tasks_out_of_domain_are_a_gain() -> None:
    groups = {OLD: ("a", "b"), NEW: ("d",), NEW_ELSEWHERE: ("c",)}
    found = gains(VALUES, groups)
    assert found == pytest.approx({"forgetting/old_in-domain": 0.005, "gain/new": 0.4, "gain/new_out-of-domain": 0.05})
    compared = comparisons(scored(VALUES), groups, seed=1)
    assert {name: one.overall.tasks for name, one in compared.items()} == {
        "after and before, old tasks": 2,
        "after and before, new tasks": 2,
    }


def test_old_and_new_tasks_are_compared_apart() -> None:
    scores = scored(FULL)
    found = comparisons(scores, GROUPS, seed=1)
    assert {name: one.overall.tasks for name, one in found.items()} == {
        "after and before, old tasks": 3,
        "after and before, new tasks": 1,
        "after and full-retraining, old tasks": 3,
        "after and full-retraining, new tasks": 1,
    }
    assert found["after and before, new tasks"].overall.mean_task.difference == pytest.approx(0.4)
    assert all(one.names[1] == "after" for one in found.values())
    del scores["full-retraining"]
    assert len(comparisons(scores, GROUPS, seed=1)) == 2
    assert comparisons({}, GROUPS, seed=1) == {}


def test_costs_in_full_runs_and_seconds() -> None:
    update, full = Cost("update member", 80, 0.8, 20.04), Cost("full retraining", 100, 1.0, None)
    rows = costs(update, 1.0, full, Cost("the model before", 180, 1.8, 90.0))
    assert [row["what"] for row in rows] == [
        *("update member", "merge", "the update", "full retraining", "the model before")
    ]
    assert rows[2] == {
        **{"what": "the update", "examples seen": "80", "full runs": 0.8, "seconds": 21.0, "note": "member and merge"}
    }
    assert (rows[3]["seconds"], rows[3]["note"]) == (None, "not run; computed")
    measured = Cost("full retraining", 100, 1.0, 30.0)
    assert costs(update, 1.0, measured, full)[3]["note"] == "for comparison"
    assert "80 examples, 0.80 full runs, 80 % of full retraining (1.00; it was not run)" in cost_sentence(update, full)
    assert "not run" not in cost_sentence(update, measured)
