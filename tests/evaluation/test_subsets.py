"""A task of mteb with three subsets, whose data is made in memory: each subset is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import pytest
from datasets import Dataset
from mteb.abstasks import AbsTask, AbsTaskClustering, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.results import TaskResult
from sentence_transformers import SentenceTransformer

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.evaluation import evaluator as module
from boom_ray.evaluation.benchmarks import score_inputs, score_spec
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.queries import read_queries
from boom_ray.evaluation.runner import look_up
from boom_ray.evaluation.scores import ModelRef
from boom_ray.evaluation.subsets import MOST, separate_subsets
from boom_ray.store import Store
from tests.evaluation.task_folders import sentences

LANGUAGES = {"de": "deu-Latn", "en": "eng-Latn", "fr": "fra-Latn"}
CONFIG = EvaluationConfig()


def metadata(kind: str, score: str, languages: dict[str, str]) -> TaskMetadata:
    return TaskMetadata(
        name="Spoken",
        description="of tests",
        type=kind,
        category="t2t",
        modalities=["text"],
        main_score=score,
        eval_splits=["test"],
        eval_langs={name: [code] for name, code in languages.items()},
        dataset={"path": "local/spoken", "revision": "1"},
        license="not specified",
        is_public=False,
    )


class Loads:
    """Makes the data of the subsets that are wanted and notes which they were."""

    loaded: list[list[str]]

    def load_data(self: Any, **kwargs: Any) -> None:
        names = sorted(self.hf_subsets)
        self.loaded.append(names)
        self.dataset = {name: {"test": self.rows(name)} for name in names}
        self.data_loaded = True


class Similar(Loads, AbsTaskSTS):
    metadata = metadata("STS", "cosine_spearman", LANGUAGES)

    def rows(self, name: str) -> Dataset:
        texts, shift = [text for text, _ in sentences(24)], len(name) + ord(name[0])
        other = [texts[(n * 5 + shift) % 24] for n in range(24)]
        return Dataset.from_dict({"sentence1": texts, "sentence2": other, "score": [float(n % 6) for n in range(24)]})


class Found(Loads, AbsTaskRetrieval):
    metadata = metadata("Retrieval", "ndcg_at_10", LANGUAGES)

    def rows(self, name: str) -> dict[str, Any]:
        texts, shift = [text for text, _ in sentences(30)], ord(name[0])
        queries = {f"q{n}": f"where is {texts[n].split()[1]} {n}" for n in range(6)}
        return {
            "corpus": Dataset.from_dict({"id": [f"p{n}" for n in range(30)], "text": texts}),
            "queries": Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
            "relevant_docs": {query: {f"p{(n + shift) % 30}": 1} for n, query in enumerate(queries)},
            "top_ranked": None,
        }


@pytest.fixture(params=[Similar, Found])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[AbsTask]:
    """Mteb's class of the task ``Spoken``, which the evaluator finds under that name."""
    cls: type[AbsTask] = request.param

    def load(task: TaskConfig, seed: int, hashes: Any = None) -> AbsTask:
        return cls(seed=seed).filter_languages(None, hf_subsets=task.subsets or None)

    monkeypatch.setattr(module, "load_task", load)
    monkeypatch.setattr(cls, "loaded", [], raising=False)
    return cls


def score(evaluator: Evaluator, model: ModelRef, *subsets: str) -> tuple[str, dict[str, Any]]:
    task = TaskConfig(name="Spoken", subsets=subsets)
    return evaluator.score(model, task, score_spec(model, task, CONFIG), score_inputs(model))


def folder(store: Store, key: str) -> Path:
    artifact = store.get("scores", key)
    assert artifact is not None
    return artifact.local()


def test_the_score_of_all_is_mtebs_and_a_subset_is_computed_once(
    kind: type[AbsTask], tmp_path: Path, tiny: ModelRef
) -> None:
    store = Store(tmp_path)
    evaluator = Evaluator(store, CONFIG)
    german = score(evaluator, tiny, "de")
    key, figures = score(evaluator, tiny)
    assert kind.loaded == [["de"], ["en", "fr"]]
    config = CONFIG.model_copy(update={"in_domain": (TaskConfig(name="Spoken", subsets=("fr",)),)})
    french = look_up(store, [tiny], config).found["tiny", "Spoken"]
    both = score(evaluator, tiny, "fr", "de")[1]
    assert len(kind.loaded) == 2, "all of that was there"
    plain = SentenceTransformer(tiny.path, device="cpu", local_files_only=True)
    expected = mteb.evaluate(plain, kind(seed=42), cache=None, co2_tracker=False, show_progress_bar=False)
    theirs = expected.task_results[0]
    ours = TaskResult.from_disk(folder(store, key) / "Spoken.json")
    assert figures["score"] == pytest.approx(theirs.get_score(), abs=1e-4)
    values = {one["hf_subset"]: one["main_score"] for one in theirs.scores["test"]}
    assert {one["hf_subset"]: one["main_score"] for one in ours.scores["test"]} == pytest.approx(values, abs=1e-4)
    assert len(set(values.values())) == 3
    assert (german[1]["score"], french.value) == pytest.approx((values["de"], values["fr"]), abs=1e-4)
    assert both["score"] == pytest.approx((values["de"] + values["fr"]) / 2, abs=1e-4)


@pytest.mark.parametrize("kind", [Found], indirect=True)
def test_queries_stay_with_their_subset(kind: type[AbsTask], tmp_path: Path, tiny: ModelRef) -> None:
    store = Store(tmp_path)
    key = score(Evaluator(store, CONFIG), tiny)[0]
    own = score(Evaluator(store, CONFIG), tiny, "en")[0]
    whole, english = read_queries(folder(store, key)), read_queries(folder(store, own))
    assert whole is not None and len(whole) == 18
    assert english == {name: value for name, value in whole.items() if name.startswith("en/")}


def test_some_tasks_stay_whole() -> None:
    many = {f"l{n}": "eng-Latn" for n in range(MOST + 1)}

    def made(base: type[AbsTask], kind: str, score: str, languages: dict[str, str]) -> AbsTask:
        return type("Made", (base,), {"metadata": metadata(kind, score, languages)})(seed=1)

    assert separate_subsets(made(AbsTaskSTS, "STS", "cosine_spearman", LANGUAGES)) == ("de", "en", "fr")
    assert separate_subsets(made(AbsTaskSTS, "STS", "cosine_spearman", {"en": "eng-Latn"})) == ()
    assert separate_subsets(made(AbsTaskSTS, "STS", "cosine_spearman", many)) == ()
    assert separate_subsets(made(AbsTaskClustering, "Clustering", "v_measure", LANGUAGES)) == ()
    assert separate_subsets(mteb.get_task("CQADupstackRetrieval")) == ()
