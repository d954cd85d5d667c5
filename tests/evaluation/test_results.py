from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mteb
import pytest
from mteb.cache import ResultCache
from mteb.results import TaskResult

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.benchmarks import score_inputs, score_spec
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.results import export, prompt_warnings, read_published, task_scores, used_prompts
from boom_ray.evaluation.scores import ModelRef, Score
from boom_ray.store import Store


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny: ModelRef, tasks: dict[str, TaskConfig]) -> tuple[Store, list[Score]]:
    """Scores of a retrieval, a reranking and an STS task in a store."""
    store = Store(tmp_path_factory.mktemp("results"))
    config = EvaluationConfig(in_domain=tuple(tasks[kind] for kind in ("retrieval", "reranking", "sts")))
    evaluator, found = Evaluator(store, config), []
    for task in config.tasks:
        key, figures = evaluator.score(tiny, task, score_spec(tiny, task, config), score_inputs(tiny))
        kind, metric, value = figures["type"], figures["metric"], figures["score"]
        found.append(Score("tiny", task.name, kind, "in_domain", metric, value, 1.0, False, key))
    return store, found


def test_scores_of_queries_are_kept_and_have_the_score_as_their_mean(scored):
    store, scores = scored
    found = task_scores(store, scores)["tiny"]
    for task in ("Myretrieval", "Myreranking"):
        queries = found[task].queries
        assert queries and all(name.startswith("default/") for name in queries)
        assert sum(queries.values()) / len(queries) == pytest.approx(found[task].value, abs=1e-4)
    assert found["Mysts"].queries is None
    assert found["Myretrieval"].metric == "ndcg_at_10"
    assert used_prompts(store, scores[0]) == {"query": "", "document": ""}


def test_exported_files_are_read_by_mteb_and_by_us(scored, tiny, tasks, tmp_path):
    store, scores = scored
    (folder,) = export(store, [tiny], scores, tmp_path / "results")
    assert folder == tmp_path / "results" / "tiny" / tiny.fingerprint[:16]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("Myreranking.json", "Myretrieval.json", "Mysts.json", "model_meta.json")
    ]
    cache = ResultCache(tmp_path)
    assert len(cache.get_cache_paths(include_remote=False)) == 3
    config = EvaluationConfig(in_domain=(tasks["sts"],), out_of_domain=(tasks["retrieval"], tasks["pair"]))
    name, found, missing = read_published(tmp_path, config)
    assert name == "boom_ray/tiny"
    assert missing == ["Mypair"]
    values = {score.task: score.value for score in scores}
    assert found["Mysts"].value == pytest.approx(values["Mysts"], abs=1e-6)
    assert (found["Myretrieval"].type, found["Myretrieval"].group) == ("Retrieval", "out_of_domain")


def test_results_that_cannot_be_used_are_named(scored, tiny, tasks, tmp_path):
    store, scores = scored
    config = EvaluationConfig(in_domain=(tasks["sts"],))
    with pytest.raises(EvaluationError, match=r"holds no model_meta\.json"):
        read_published(tmp_path, config)
    (folder,) = export(store, [tiny], scores[:1], tmp_path)
    with pytest.raises(EvaluationError, match=r"results of none of the tasks, e.g. Mysts.json"):
        read_published(tmp_path, config)
    (folder / "Mysts.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"Mysts.json cannot be read as a result file of mteb"):
        read_published(tmp_path, config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_meta.json").write_text(json.dumps({"name": "a/b"}))
    with pytest.raises(EvaluationError, match="results of 2 models"):
        read_published(tmp_path, config)


def publish(folder: Path, name: str, subsets: Sequence[str], revision: str) -> Path:
    """mteb's result file of one of its tasks, whose subsets score 0.1, 0.2…"""
    (folder / "model_meta.json").write_text(json.dumps({"name": "a/b"}))
    scores = {"test": {subset: {"main_score": 0.1 * n} for n, subset in enumerate(subsets, start=1)}}
    result = TaskResult.from_task_results(mteb.get_task(name), scores, evaluation_time=1.0)
    result.dataset_revision = revision
    result.to_disk(folder / f"{name}.json")
    return folder


def test_a_published_file_with_some_subsets_is_no_score_on_all(tmp_path, caplog):
    every, revision = mteb.get_task("STS17").hf_subsets, mteb.get_task("STS17").metadata.revision
    whole = EvaluationConfig(in_domain=(TaskConfig(name="STS17"), TaskConfig(name="STS12")))
    english = EvaluationConfig(in_domain=(TaskConfig(name="STS17", subsets=("en-en",)),))
    publish(tmp_path, "STS12", ["default"], mteb.get_task("STS12").metadata.revision)
    publish(tmp_path, "STS17", ["en-en"], revision)
    name, found, missing = read_published(tmp_path, whole)
    assert (name, list(found), missing) == ("a/b", ["STS12"], ["STS17"])
    assert read_published(tmp_path, english)[1]["STS17"].value == pytest.approx(0.1)
    publish(tmp_path, "STS17", every, revision)
    assert read_published(tmp_path, whole)[1]["STS17"].value == pytest.approx(0.1 * (len(every) + 1) / 2)
    assert not caplog.text


def test_a_published_file_of_other_data_is_warned_about(tmp_path, caplog):
    publish(tmp_path, "STS12", ["default"], "0ld")
    assert "STS12" in read_published(tmp_path, EvaluationConfig(in_domain=(TaskConfig(name="STS12"),)))[1]
    known = mteb.get_task("STS12").metadata.revision
    assert (
        f"{tmp_path / 'STS12.json'} is of revision 0ld of the data, mteb {mteb.__version__} has {known}" in caplog.text
    )


TRAINED = {"query": "find: ", "document": "", "faq": "faq: ", "faq-document": "answer: "}


@pytest.mark.parametrize(
    ("task", "used", "stored", "expected"),
    [
        ({"overlaps": ["faq"]}, {"query": "faq: ", "document": "answer: "}, TRAINED, []),
        ({"overlaps": ["faq"]}, {"query": "find: ", "document": ""}, TRAINED, ["query", "document"]),
        ({}, {"query": "find: ", "document": ""}, TRAINED, []),
        ({}, {"text": ""}, TRAINED, ["text"]),
        ({}, {"text": ""}, {}, []),
        ({}, {"query": "query: "}, {}, ["query"]),
        ({}, {"query": "q: ", "document": ""}, {"query": "q: "}, []),
        ({}, {"query": "q: ", "document": "q: "}, {"query": "q: "}, ["document"]),
        ({}, {"document": "p: "}, {"query": "q: ", "passage": "p: "}, []),
        ({}, {"document": ""}, {"query": "q: ", "corpus": "c: "}, ["document"]),
        ({"overlaps": ["faq"]}, {"document": "p: "}, {"faq": "faq: ", "passage": "p: "}, []),
    ],
)
def test_prompts_that_differ_from_training_are_warned_about(task, used, stored, expected):
    found = prompt_warnings("m", TaskConfig(name="t", path="p", type="retrieval", **task), used, stored)
    assert [line.split(": ")[1].split(" ")[0] for line in found] == expected
    assert all(line.startswith("m on t: ") for line in found)
