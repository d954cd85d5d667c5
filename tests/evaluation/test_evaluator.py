from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb.results import TaskResult
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError, ModelError
from boom_ray.evaluation.encoder import Encoder, Memo, load_model, task_prompts
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.folders import PairData, RetrievalData, read_folder
from boom_ray.evaluation.local_tasks import FORMS, load_task
from boom_ray.evaluation.scores import Manner, ModelRef
from boom_ray.hashing import file_digest
from boom_ray.store import Store
from tests.evaluation.task_folders import TYPES
from tests.tiny_model import make_tiny_model


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    return Evaluator(Store(tmp_path), EvaluationConfig())


@pytest.fixture(scope="module")
def plain(tiny: ModelRef) -> SentenceTransformer:
    return SentenceTransformer(tiny.path, device="cpu", local_files_only=True)


@pytest.mark.parametrize("kind", TYPES)
def test_scores_equal_those_of_plain_mteb(
    kind: str, evaluator: Evaluator, tiny: ModelRef, plain: SentenceTransformer, tasks: dict[str, TaskConfig]
) -> None:
    result, figures = evaluator.measure(tiny, tasks[kind])
    expected = mteb.evaluate(plain, load_task(tasks[kind], 42), cache=None, co2_tracker=False, show_progress_bar=False)
    assert figures["score"] == pytest.approx(expected.task_results[0].get_score(), abs=1e-4)
    assert 0.02 < abs(figures["score"]) < 0.999, "an extreme score would say nothing about parity"
    assert (figures["type"], figures["metric"]) == FORMS[kind][1:3]
    ours, theirs = (list(found.scores["test"][0]) for found in (result, expected.task_results[0]))
    assert ours == theirs


def test_ndcg_by_hand(
    evaluator: Evaluator, tiny: ModelRef, plain: SentenceTransformer, tasks: dict[str, TaskConfig]
) -> None:
    data = read_folder(tasks["retrieval"])
    assert isinstance(data, RetrievalData)
    passages = plain.encode([f"{title} {text}" for title, text in data.corpus.values()])
    queries = plain.encode(list(data.queries.values()))
    order = np.argsort(-(queries @ passages.T), axis=1)[:, :10]
    ids, discount, found = list(data.corpus), 1 / np.log2(np.arange(2, 12)), []
    for query, ranked in zip(data.queries, order, strict=True):
        gains = np.array([data.relevant[query].get(ids[place], 0) for place in ranked])
        best = sorted(data.relevant[query].values(), reverse=True)[:10]
        found.append((gains * discount).sum() / (best * discount[: len(best)]).sum())
    assert evaluator.measure(tiny, tasks["retrieval"])[1]["score"] == pytest.approx(np.mean(found), abs=1e-4)


def test_spearman_by_hand(
    evaluator: Evaluator, tiny: ModelRef, plain: SentenceTransformer, tasks: dict[str, TaskConfig]
) -> None:
    data = read_folder(tasks["sts"])
    assert isinstance(data, PairData)
    cosines = (plain.encode(data.first) * plain.encode(data.second)).sum(1)
    expected = spearmanr(cosines, data.scores).statistic
    assert evaluator.measure(tiny, tasks["sts"])[1]["score"] == pytest.approx(expected, abs=1e-4)


def test_a_score_leaves_mtebs_own_result_file(
    evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    hashes = {"test.jsonl": file_digest(Path(str(tasks["sts"].path)) / "test.jsonl")}
    with pytest.raises(EvaluationError, match=r"test\.jsonl has changed since the job looked at it"):
        evaluator.score(tiny, tasks["sts"], {"data": {"test.jsonl": "d"}}, {"weights": "w"})
    key, figures = evaluator.score(tiny, tasks["sts"], {"data": hashes}, {"weights": "w"})
    artifact = evaluator.store.get("scores", key)
    assert artifact is not None and artifact.figures == figures
    result = TaskResult.from_disk(artifact.local() / "Mysts.json")
    assert result.task_name == "Mysts"
    assert result.get_score() == pytest.approx(figures["score"], abs=1e-6)
    assert figures["prompts"] == {"text": ""}


def test_the_same_evaluation_gives_the_same_score(
    evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    for kind in ("clustering", "classification"):
        first, second = (evaluator.measure(tiny, tasks[kind])[0].scores for _ in range(2))
        assert first == second


def test_max_clustered_limits_the_texts(evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    task = load_task(tasks["clustering"].model_copy(update={"max_clustered": 10}), 42)
    assert (task.max_document_to_embed, task.max_documents_per_cluster) == (10, 10)


def test_bfloat16_is_close(tmp_path: Path, tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    half = Evaluator(Store(tmp_path), EvaluationConfig(precision="bfloat16"))
    full = Evaluator(Store(tmp_path), EvaluationConfig())
    values = [found.measure(tiny, tasks["pair"])[1]["score"] for found in (half, full)]
    assert values[0] == pytest.approx(values[1], abs=0.1)


def test_templates_become_prompts_of_queries_and_passages(
    evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]
) -> None:
    model = dataclasses.replace(tiny, query_template="Do {task}: {text}", passage_template="P: {text}")
    for kind, roles in (("retrieval", {"query": "Do x: ", "document": "P: "}), ("sts", {"text": "Do x: "})):
        task = tasks[kind].model_copy(update={"instruction": "x"})
        prompted = evaluator.measure(model, task)[1]
        assert prompted["prompts"] == roles
        assert prompted["score"] != evaluator.measure(tiny, task)[1]["score"]


def test_stored_prompts_are_used_by_task_name_and_type(tmp_path: Path, tasks: dict[str, TaskConfig]) -> None:
    folder = make_tiny_model(tmp_path / "model")
    stored = {"Mysts": "mine: ", "PairClassification": "pair: ", "query": "ask: ", "document": ""}
    settings = {"prompts": stored, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    model, evaluator = ModelRef.of("m", folder), Evaluator(Store(tmp_path), EvaluationConfig())
    used = {kind: evaluator.measure(model, tasks[kind])[1]["prompts"] for kind in ("sts", "pair", "retrieval")}
    assert used == {
        "sts": {"text": "mine: "},
        "pair": {"text": "pair: "},
        "retrieval": {"query": "ask: ", "document": ""},
    }


def test_bare_templates_leave_the_stored_prompts_alone(tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    assert task_prompts(tiny, tasks["sts"], "x") is None


def test_no_text_is_embedded_twice(tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    model, seen = load_model(tiny.path, "float32"), []
    encoder = Encoder(model)
    embed = encoder.embedder.embed

    def counting(texts: list[str], manner: Manner) -> np.ndarray:
        seen.append((list(texts), manner))
        return embed(texts, manner)

    encoder.embedder.embed = counting
    metadata = load_task(tasks["sts"], 42).metadata
    vectors = encoder.encode([{"text": ["cat", "dog"]}, {"text": ["cat"]}], task_metadata=metadata, batch_size=2)
    more = encoder.encode([{"text": ["bird", "dog"]}], task_metadata=metadata)
    assert seen == [(["cat", "dog"], Manner()), (["bird"], Manner())]
    assert vectors.shape == (3, 32) and (vectors[0] == vectors[2]).all() and (more[1] == vectors[1]).all()
    assert vectors == pytest.approx(model.encode(["cat", "dog", "cat"]), abs=1e-6)
    encoder.use_prompts({"Mysts": "find: "})
    encoder.encode([{"text": ["cat"]}], task_metadata=metadata)
    assert seen[2:] == [(["cat"], Manner("find: "))]  # another prompt, another embedding


def test_memory_of_known_embeddings_is_bounded() -> None:
    memo, calls = Memo(most=100), []

    def embed(texts: list[str], manner: Manner) -> np.ndarray:
        calls.append(list(texts))
        return np.array([[len(text), 0.0] for text in texts], dtype=np.float32)

    for texts in (["a", "bb"], ["bb", "ccc"], [str(number) for number in range(12)], ["bb"]):
        found = memo.look_up(texts, Manner(), embed)
        assert found[:, 0].tolist() == [len(text) for text in texts]
        assert memo.held <= 100
    assert calls == [["a", "bb"], ["ccc"], [str(number) for number in range(12)], ["bb"]]


def test_nan_embeddings_are_an_error(evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    evaluator.measure(tiny, tasks["sts"])
    loaded = evaluator._encoder(tiny).model
    next(loaded.parameters()).data.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="holds NaN or infinity"):
        evaluator.measure(tiny, tasks["bitext"])


def test_a_collapsed_model_is_an_error(evaluator: Evaluator, tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    loaded = evaluator._encoder(tiny).model
    norm = loaded[0].auto_model.encoder.layer[-1].output.LayerNorm
    norm.weight.data.zero_()
    norm.bias.data.fill_(1.0)
    with pytest.raises(EvaluationError, match="is nan: all its embeddings are equal"):
        evaluator.measure(tiny, tasks["sts"])


def test_an_mteb_task_without_network_says_so(evaluator: Evaluator, tiny: ModelRef) -> None:
    with pytest.raises(EvaluationError, match="STS12 is not on this machine and the hub cannot be reached"):
        evaluator.measure(tiny, TaskConfig(name="STS12"))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle file"):
        load_model(str(folder), "float32")
