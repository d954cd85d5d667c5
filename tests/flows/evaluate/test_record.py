"""What an evaluation leaves when models cannot be ranked or compared: everything else."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from boom_ray.config import EvaluateJobConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.domains import TaskDomain
from boom_ray.evaluation.queries import write_queries
from boom_ray.evaluation.results import Scores, task_scores
from boom_ray.evaluation.scores import Evaluation, Failure, ModelRef, Score
from boom_ray.flows.evaluate.record import EvaluateRecorder, Published, check_compared
from boom_ray.flows.workspace import Workspace
from boom_ray.store import Draft, Store
from tests.flows.recording import Remembered, Runs
from tests.tiny_model import make_tiny_model

QUERIES = {"default/1": 0.25, "default/2": 0.75}


class Tracker(Runs):
    """Runs that can be shown."""

    def flush(self) -> None:
        """Nothing waits."""

    def how_to_open(self) -> str:
        """Nobody asks."""
        return "mlflow"


class Kitchen:
    """Two models of a store with scores on a retrieval task, and whoever is told of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.said = root, Store(root / "store"), list[str]()
        self.models = [ModelRef.of(name, make_tiny_model(root / name, seed=seed)) for seed, name in enumerate("ab")]
        self.runs = Tracker()

    def score(self, model: str, value: float = 0.5, queries: dict[str, float] = QUERIES) -> Score:
        """A score in the store, with mteb's result file."""

        def build(draft: Draft) -> None:
            (draft.path / "Found.json").write_text("{}")
            write_queries(draft.path, queries)
            draft.figures = {"prompts": {}}

        key = self.store.materialize("scores", {"model": model}, {}, build).key
        return Score(model, "Found", "Retrieval", "out_of_domain", "ndcg_at_10", value, 1.0, False, key)

    def recorder(self, compare: bool = True) -> EvaluateRecorder:
        """Of a job that exports all models and the card of ``b``."""
        console = Console(file=io.StringIO())
        progress: Any = SimpleNamespace(say=self.said.append, console=console)
        tracker: Any = self.runs
        config = EvaluateJobConfig.model_validate(
            {
                "name": "job",
                "models": [{"name": model.name, "path": model.path} for model in self.models],
                "evaluation": {"out_of_domain": [{"name": "Found"}]},
                "export": str(self.root / "export"),
                "card_of": "b",
                "compare": compare,
            }
        )
        return EvaluateRecorder(Workspace(self.store, tracker, progress, {}), config, self.models, 0.0)

    def finish(self, evaluation: Evaluation, others: dict[str, Scores], compare: bool = True) -> list[str]:
        """What the job cannot compare."""
        recorder = self.recorder(compare)
        published = [Published(name, scores, []) for name, scores in others.items()]
        scores = task_scores(self.store, evaluation.scores) | others
        return list(recorder.finish(recorder.config.evaluation, evaluation, scores, published))

    @property
    def run(self) -> Remembered:
        return self.runs.found["job"]

    @property
    def exported(self) -> set[str]:
        return {f"{path.parent.parent.name}/{path.name}" for path in (self.root / "export").glob("*/*/*")}


EXPORTED = {"a/Found.json", "a/model_meta.json", "b/Found.json", "b/model_meta.json", "b/README.md"}


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def published(kitchen: Kitchen, **changes: Any) -> Scores:
    """Published scores of a task, without values per query."""
    score = task_scores(kitchen.store, [kitchen.score("b")])["b"]["Found"]
    changed = dataclasses.replace(score, queries=None, **changes)
    return {changed.task: changed}


def test_a_model_without_a_common_task_loses_no_other_comparison_and_no_file(kitchen: Kitchen) -> None:
    evaluation = Evaluation((kitchen.score("a"), kitchen.score("b")))
    (reason,) = kitchen.finish(evaluation, {"theirs": published(kitchen, task="Else"), "ours": published(kitchen)})
    assert reason.startswith(
        "theirs cannot be compared with a: a and theirs have no task in common: Found against Else"
    )
    assert reason in kitchen.said
    compared = {name for name in kitchen.run.logged["texts"] if name.startswith("compare/")}
    assert compared == {f"compare/{name}.{kind}" for name in ("b", "ours") for kind in ("csv", "json", "md", "png")}
    assert kitchen.exported == EXPORTED
    assert any(text.startswith("\nours against a:") for text in kitchen.said)
    assert f"mteb's result files: {kitchen.root}/export" in kitchen.said[-1]
    assert kitchen.run.status == "FAILED"
    with pytest.raises(EvaluationError, match="all else is done:\n  theirs cannot be compared with a"):
        check_compared([reason])


def test_queries_that_are_not_of_the_main_metric_stop_the_comparison_alone(kitchen: Kitchen) -> None:
    evaluation = Evaluation((kitchen.score("a"), kitchen.score("b", 0.9)))
    (reason,) = kitchen.finish(evaluation, {"ours": published(kitchen)})
    assert reason.startswith("b cannot be compared with a: Found has the score 0.9000, but its 2 queries average 0.5")
    texts = kitchen.run.logged["texts"]
    assert {"means.csv", "scores.csv", "types.png", "model_card.md", "compare/ours.md"} <= texts.keys()
    assert {row["model"]: row["mean_task"] for row in texts["means.csv"]} == {"a": 0.5, "b": 0.9, "ours": 0.5}
    assert kitchen.exported == EXPORTED


def test_nothing_fails_that_was_not_asked_for(kitchen: Kitchen) -> None:
    evaluation = Evaluation((kitchen.score("a"), kitchen.score("b")))
    assert kitchen.finish(evaluation, {"theirs": published(kitchen, task="Else")}, compare=False) == []
    assert kitchen.run.status == "FINISHED"
    check_compared([])


def test_scores_that_are_none_leave_all_but_means_and_comparisons(kitchen: Kitchen) -> None:
    evaluation = Evaluation((kitchen.score("a"), kitchen.score("b")))
    reasons = kitchen.finish(evaluation, {"theirs": published(kitchen, value=50.0)})
    what = "Found has the score 50; scores lie between -1 and 1, 1 is perfect."
    assert reasons == [f"Models cannot be ranked: {what}", f"theirs cannot be compared with a: {what}"]
    assert [kitchen.said.count(reason) for reason in reasons] == [1, 1], "each is said once"
    assert "means.csv" not in kitchen.run.logged["texts"]
    assert {"scores.csv", "compare/b.md"} <= kitchen.run.logged["texts"].keys()
    assert kitchen.runs.found["a"].logged["metrics"] == {"scores/Found": 0.5, "evaluation_seconds": 1.0}
    assert kitchen.exported == EXPORTED


def test_a_baseline_without_scores_compares_nothing(kitchen: Kitchen) -> None:
    evaluation = Evaluation((kitchen.score("b"),), (Failure("a", "Found", "it broke"),))
    assert kitchen.finish(evaluation, {}) == ["Nothing is compared: the baseline a has no scores."]
    assert kitchen.exported == EXPORTED - {"a/Found.json"}


def test_what_a_corpus_holds_of_the_tasks_sources_is_a_table(kitchen: Kitchen) -> None:
    recorder = kitchen.recorder()
    recorder.domains([])
    assert "domains.csv" not in kitchen.run.logged["texts"]
    recorder.domains([TaskDomain("Found", "out_of_domain", {"finding": "overlaps"})])
    assert kitchen.run.logged["texts"]["domains.csv"] == [
        {
            "task": "Found",
            "reported as": "out-of-domain",
            "trained on": "finding (by overlaps)",
            "by training": "in-domain",
        }
    ]
