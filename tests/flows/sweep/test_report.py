"""Which member the chosen model is compared with, and how models are shown beside trials."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.config import ObjectiveConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.scores import Evaluation, Failure, ModelRef, Score
from boom_ray.flows.sweep import report
from boom_ray.flows.sweep.finish import marked
from boom_ray.flows.sweep.report import best_member, name_others
from boom_ray.store import Artifact
from tests.flows.recording import bare_workspace
from tests.sweeps.planted import WEIGHTS, sweep

TYPES = {"one": "STS", "two": "STS", "three": "Retrieval"}
SCORES = {
    "even": {"one": 0.5, "two": 0.5, "three": 0.5},
    "pairs": {"one": 0.8, "two": 0.8, "three": 0.1},
    "search": {"one": 0.3, "two": 0.3, "three": 0.9},
}


def artifact(key: str) -> Artifact:
    return Artifact("member", key, "", {}, {}, {}, key, {})


@pytest.mark.parametrize(
    ("wanted", "best"),
    [
        ([ObjectiveConfig()], "pairs"),  # mean: 0.5, 0.567, 0.5
        ([ObjectiveConfig(metric="mean_by_type")], "search"),  # 0.5, 0.45, 0.6
        ([ObjectiveConfig(metric="worst")], "even"),
        ([ObjectiveConfig(tasks=("three",))], "search"),
        # scaled to the front's range "even" is 0.6 and 0.5 from the best, the others 0 and 1
        ([ObjectiveConfig(name="a", tasks=("one",)), ObjectiveConfig(name="b", tasks=("three",))], "even"),
    ],
)
def test_the_best_member_is_best_by_what_the_sweep_searched_for(wanted: list[ObjectiveConfig], best: str) -> None:
    assert best_member(SCORES, TYPES, wanted) == best


def test_members_of_other_trials_have_names_of_their_own() -> None:
    every = {
        key: (bag, artifact(key))
        for key, bag in (
            ("k1", "bag-80"),
            ("k2", "bag-60"),
            ("abcdefgh", "bag-80"),
            ("bcdefghi", "bag-60"),
            ("k3", "100"),
        )
    }
    found = name_others({"bag-80": "k1", "baseline-100": "k3"}, every)
    assert {name: one.key for name, one in found.items()} == {
        "bag-60": "k2", "bag-80~abcdef": "abcdefgh", "bag-60~bcdefg": "bcdefghi",
    }  # fmt: skip


def test_a_member_that_the_report_can_do_without_may_fail_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space, _ = bare_workspace(tmp_path)
    config = sweep(WEIGHTS)
    foundation: Any = SimpleNamespace(evaluation=config.evaluation)
    models = [ModelRef(name, "", "", "") for name in ("chosen", "spare")]

    def evaluate(store: Any, models: Any, tasks: Any, listen: Any) -> Evaluation:
        assert [task.name for task in tasks.in_domain] == ["retrieval", "sts"]
        scores = tuple(
            Score(model.name, task, kind, "in_domain", "m", 0.5, 0.0, False)
            for model in models
            for task, kind in (("retrieval", "Retrieval"), ("sts", "STS"))
        )
        return Evaluation(scores[:-1], (Failure("spare", "sts", "NaN in layer 3"),))

    monkeypatch.setattr(report, "evaluate", evaluate)
    with caplog.at_level(logging.WARNING):
        found, types = report._selection(space, foundation, models, {"spare": artifact("k")})
    assert found == {"chosen": {"retrieval": 0.5, "sts": 0.5}}
    assert types == {"retrieval": "Retrieval", "sts": "STS"}
    assert [one.getMessage() for one in caplog.records] == ["Member spare is not compared: on sts, NaN in layer 3"]
    with pytest.raises(EvaluationError, match="spare on sts: NaN in layer 3"):
        report._selection(space, foundation, models, {})


def test_marked_models_have_the_types_that_the_evaluation_found() -> None:
    config = sweep(WEIGHTS, objectives=[{"name": "score", "metric": "mean_by_type"}])
    found: Any = SimpleNamespace(selection=SCORES, types=TYPES)
    assert marked(found, config)["pairs"] == {"score": pytest.approx((0.8 + 0.1) / 2)}
