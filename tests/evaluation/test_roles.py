"""Models that embed queries and documents in different ways have plain mteb's scores; others do not notice roles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.evaluation.embedder import EngineEmbedder, LibraryEmbedder, make_embedder, tells_roles_apart
from boom_ray.evaluation.encoder import Encoder, load_model
from boom_ray.evaluation.evaluator import Evaluator
from boom_ray.evaluation.local_tasks import load_task
from boom_ray.evaluation.runner import evaluate
from boom_ray.evaluation.scores import Manner, ModelRef
from boom_ray.store import Store
from tests.evaluation.router_model import make_router_model
from tests.evaluation.task_folders import write_jsonl
from tests.tiny_model import make_tiny_model

PROMPTS = {"query": "find: ", "document": "text: "}


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef.of("routed", make_router_model(tmp_path_factory.mktemp("routed") / "model", PROMPTS))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """One whose queries and documents are cut at different lengths."""
    folder = make_tiny_model(tmp_path_factory.mktemp("short") / "model")
    path = folder / "sentence_bert_config.json"
    lengths = {"query_length": 5, "document_length": 6}
    path.write_text(json.dumps(json.loads(path.read_text()) | lengths), encoding="utf-8")
    return ModelRef.of("short", folder)


def plain_score(model: ModelRef, task: TaskConfig) -> float:
    """What mteb says of the model as sentence-transformers loads it."""
    loaded = SentenceTransformer(model.path, device="cpu", local_files_only=True)
    found = mteb.evaluate(loaded, load_task(task, 42), cache=None, co2_tracker=False, show_progress_bar=False)
    return float(found.task_results[0].get_score())


@pytest.mark.parametrize("kind", ["retrieval", "reranking", "sts", "classification"])
@pytest.mark.parametrize("name", ["routed", "short"])
def test_scores_are_those_of_plain_mteb(
    name: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path, tasks: dict[str, TaskConfig]
) -> None:
    model: ModelRef = request.getfixturevalue(name)
    figures = Evaluator(Store(tmp_path), EvaluationConfig()).measure(model, tasks[kind])[1]
    assert figures["score"] == pytest.approx(plain_score(model, tasks[kind]), abs=1e-6)
    assert 0.02 < abs(figures["score"]) < 0.999, "an extreme score would say nothing about parity"


@pytest.mark.parametrize("name", ["routed", "short"])
def test_the_role_decides(name: str, request: pytest.FixtureRequest) -> None:
    model = load_model(request.getfixturevalue(name).path, "float32")
    embedder, texts = make_embedder(model, 2), ["the cat and a dog hear the rain in a tree", "cat"]
    assert isinstance(embedder, LibraryEmbedder) and embedder.has_roles
    query, document = (embedder.embed(texts, Manner("a ", role)) for role in ("query", "document"))
    assert query == pytest.approx(model.encode_query(texts, prompt="a "), abs=1e-6)
    assert document == pytest.approx(model.encode_document(texts, prompt="a "), abs=1e-6)
    assert abs(query - document).max() > 0.05
    assert embedder.embed(texts, Manner("a ")) == pytest.approx(model.encode(texts, prompt="a "), abs=1e-6)


def seen_by(encoder: Encoder) -> list[tuple[list[str], Manner]]:
    """What reaches the embedder from now on."""
    seen: list[tuple[list[str], Manner]] = []
    embed = encoder.embedder.embed

    def watched(texts: list[str], manner: Manner) -> np.ndarray:
        seen.append((list(texts), manner))
        return embed(texts, manner)

    encoder.embedder.embed = watched
    return seen


def encode(encoder: Encoder, metadata: Any, role: PromptType | None) -> np.ndarray:
    return encoder.encode([{"text": ["cat", "dog"]}], task_metadata=metadata, prompt_type=role)


def test_texts_are_embedded_once_per_role(routed: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    encoder, metadata = Encoder(load_model(routed.path, "float32")), load_task(tasks["sts"], 42).metadata
    encoder.use_prompts({})
    seen = seen_by(encoder)
    found = [encode(encoder, metadata, role) for role in (*PromptType, None, PromptType.query)]
    assert [manner.role for _, manner in seen] == ["query", "document", None]
    assert (found[0] == found[3]).all() and (found[1] != found[0]).all()


def test_symmetric_models_embed_a_text_once_whatever_it_is(tiny: ModelRef, tasks: dict[str, TaskConfig]) -> None:
    model = load_model(tiny.path, "float32")
    encoder, metadata = Encoder(model), load_task(tasks["sts"], 42).metadata
    assert isinstance(encoder.embedder, EngineEmbedder) and not tells_roles_apart(model)
    alone = encoder.embedder.embed(["cat", "dog"], Manner())
    seen = seen_by(encoder)
    for role in (None, *PromptType):
        assert (encode(encoder, metadata, role) == alone).all()
    assert seen == [(["cat", "dog"], Manner())]


@pytest.mark.ray
def test_roles_reach_those_who_help(ray_cluster: None, tmp_path: Path, routed: ModelRef) -> None:
    words = ("cat", "dog", "bird", "tree", "river", "bank")
    passages = [{"_id": f"p{n}", "text": f"the {words[n % 6]} and {words[n // 6 % 6]} {n}"} for n in range(14_000)]
    folder = write_jsonl(tmp_path / "big" / "corpus.jsonl", passages).parent
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"{words[n % 6]} {n}"} for n in range(40)])
    (folder / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\tp{n + 36 * more}\t1" for n in range(40) for more in range(99))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = TaskConfig(name="big", path=str(folder), type="retrieval")
    (score,) = evaluate(Store(tmp_path / "store"), [routed], EvaluationConfig(in_domain=(task,), actors=2)).scores
    assert score.value == Evaluator(Store(tmp_path / "alone"), EvaluationConfig()).measure(routed, task)[1]["score"]
