"""Values of single queries: for every metric that is a mean over queries they average to mteb's score."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mteb
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from boom_ray.evaluation.compare import TaskScore, compare
from boom_ray.evaluation.queries import read_queries, watch_queries, write_queries
from boom_ray.evaluation.scores import ModelRef
from tests.evaluation.test_subsets import Found, metadata


@pytest.fixture(scope="module")
def model(tiny: ModelRef) -> SentenceTransformer:
    return SentenceTransformer(tiny.path, device="cpu", local_files_only=True)


def judged(metric: str, **attributes: Any) -> Any:
    """A task of two subsets whose queries have up to three relevant passages."""

    class Judged(Found):
        def rows(self, name: str) -> dict[str, Any]:
            rows = super().rows(name)
            relevant = rows["relevant_docs"]
            for number, query in enumerate(relevant):
                relevant[query] |= {f"p{(7 * number + extra) % 30}": 1 for extra in range(number % 3)}
            return rows

    languages = {"de": "deu-Latn", "en": "eng-Latn"}
    own = {"metadata": metadata("Retrieval", metric, languages), "loaded": [], **attributes}
    return type("Judged", (Judged,), own)(seed=1)


METRICS = ["ndcg_at_10", "map_at_100", "recall_at_10", "recall_at_1", "precision_at_5", "hit_rate_at_5", "mrr_at_10"]


@pytest.mark.parametrize("metric", METRICS)
def test_queries_average_to_the_score(metric: str, model: SentenceTransformer) -> None:
    task = judged(metric)
    queries = watch_queries(task)
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]
    found = queries()
    assert {name: sum(key.startswith(f"{name}/q") for key in found) for name in ("de", "en")} == {"de": 6, "en": 6}
    assert len(set(found.values())) > 1
    for one in result.scores["test"]:
        own = [value for key, value in found.items() if key.startswith(f"{one['hf_subset']}/")]
        assert np.mean(own) == pytest.approx(one["main_score"], abs=1e-5)  # mteb rounds


def test_such_a_task_has_an_interval_and_a_test(model: SentenceTransformer) -> None:
    task = judged("recall_at_10")
    queries = watch_queries(task)
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0]
    score = TaskScore("r", "Retrieval", "in_domain", float(result.get_score()), queries(), "recall_at_10")
    nothing = TaskScore("r", "Retrieval", "in_domain", 0.0, dict.fromkeys(queries(), 0.0), "recall_at_10")
    (compared,) = compare({"r": nothing}, {"r": score}).tasks
    assert compared.tested and compared.queries == 12 and compared.interval is not None


def watched(metric: str, own: dict[str, float], skip_first_result: bool = False) -> dict[str, float]:
    """What is kept of two queries."""
    task = SimpleNamespace(
        metadata=SimpleNamespace(main_score=metric),
        eval_splits=["dev", "test"],
        skip_first_result=skip_first_result,
        task_specific_scores=lambda scores, qrels, results, hf_split, hf_subset: own,
    )
    queries = watch_queries(task)
    scores = {"a": {"recall_2": 0.5, "P_2": 0.25}, "b": {"recall_2": 1.0, "P_2": 0.5}}
    qrels, results = {"a": {"x": 1, "y": 0}, "b": {"z": 1}}, {"a": {"y": 0.9, "x": 0.5}, "b": {"y": 0.1, "x": 0.3}}
    assert task.task_specific_scores(scores, qrels, results, hf_split="test", hf_subset="en") == own
    return queries()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("recall_at_2", [0.5, 1.0]),
        ("precision_at_2", [0.25, 0.5]),
        ("mrr_at_2", [0.5, 0.0]),
        ("mrr_at_1", [0.0, 0.0]),
        ("recall_at_3", []),
        ("capped_recall_at_2", []),
        ("p-MRR", []),
        ("accuracy", []),
    ],
)
def test_values_by_hand(metric: str, expected: list[float]) -> None:
    assert watched(metric, {}) == dict(zip(("test:en/a", "test:en/b"), expected, strict=False))


def test_scores_that_mteb_computes_otherwise_have_no_queries() -> None:
    assert watched("recall_at_2", {"recall_at_2": 0.1}) == {}
    assert watched("mrr_at_2", {}, skip_first_result=True) == {}, "ranks are of results without the first"
    assert len(watched("recall_at_2", {}, skip_first_result=True)) == 2


def test_tasks_without_queries_have_none(tmp_path: Path) -> None:
    assert watch_queries(SimpleNamespace())() == {}
    write_queries(tmp_path, {})
    assert read_queries(tmp_path) is None
