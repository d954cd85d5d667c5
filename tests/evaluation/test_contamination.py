"""Planted texts are found, whatever the number of parts; the report on a corpus goes by what ingest kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config import CorpusConfig, DatasetConfig, EvaluationConfig, NearDuplicatesConfig, TaskConfig
from boom_ray.corpus import ingest as ingest_module
from boom_ray.corpus.ingest import ingest
from boom_ray.errors import StoreError
from boom_ray.evaluation.benchmarks import evaluation_texts
from boom_ray.evaluation.comparing import PAIRS, Findings, HeldTexts, compare
from boom_ray.evaluation.contamination import (
    SHOWN,
    compare_part,
    contamination,
    contamination_pairs,
    contamination_table,
)
from boom_ray.evaluation.folders import HeldOut
from boom_ray.evaluation.held_out import near_texts
from boom_ray.hashing import digest
from boom_ray.store import Artifact, Store
from tests.corpus.conftest import spec
from tests.evaluation.task_folders import write_jsonl

DEFAULT = NearDuplicatesConfig()
LONG = "how can i reset the password of my online banking account"
WORDS = ["reset", "password", "online", "banking", "account", "garden", "harbour", "mountain", "window", "paper"]


def held(**tasks: list[str]) -> HeldTexts:
    texts = {task: [HeldOut("texts", (text,)) for text in own] for task, own in tasks.items()}
    return HeldTexts.of(texts, DEFAULT)[0]


def found_texts(known: HeldTexts, numbers: set[int]) -> set[str]:
    return {known.index.texts[number].as_py().decode() for number in numbers}


def test_exact_near_and_unrelated_texts() -> None:
    known = held(t=[LONG, "what is ai", "nothing like this occurs in the training data"])
    found = compare(
        known, "d", [LONG.upper(), f"{LONG}s", "what  IS ai", "what is it", "an unrelated text that is long"]
    )
    assert found_texts(known, found.exact["d"]) == {LONG, "what is ai"}
    assert found_texts(known, found.near["d"]) == {LONG}
    (pair,) = found.pairs[1].values()
    assert (pair.dataset, pair.text) == ("d", f"{LONG}s")
    assert 0.8 < pair.similarity < 1


def test_nothing_to_look_for() -> None:
    found = compare(held(), "d", [LONG])
    assert (found.exact, found.near) == ({"d": set()}, {"d": set()})
    assert compare(held(t=[LONG]), "d", []).exact == {"d": set()}


def test_a_text_with_two_forms_counts_once() -> None:
    texts = {"t": [HeldOut("passages", ("Body.", "Title Body.")), HeldOut("passages", ("body.", "TITLE body."))]}
    known, items = HeldTexts.of(texts, DEFAULT)
    assert len(items["t"]) == 1
    assert len(items["t"][0].forms) == len(known.keys) == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=6))
def test_a_text_always_matches_itself(texts: list[str]) -> None:
    known = held(t=texts)
    assert found_texts(known, compare(known, "d", texts).exact["d"]) == found_texts(known, set(range(len(known.keys))))


def findings(known: HeldTexts, parts: list[tuple[str, list[str]]]) -> Findings:
    total = Findings()
    for dataset, texts in parts:
        total.join(compare(known, dataset, texts))
    total.trim(known)
    return total


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_division_into_parts_and_their_order_do_not_matter(data: st.DataObject) -> None:
    sentence = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
    known = held(t=data.draw(st.lists(sentence, min_size=15, max_size=40)), u=data.draw(st.lists(sentence, max_size=9)))
    texts = data.draw(st.lists(sentence, max_size=60))
    cut = data.draw(st.integers(0, len(texts)))
    whole = findings(known, [("a", texts), ("b", texts[cut:])])
    parts = [("a", texts[:cut]), ("a", texts[cut:]), ("b", texts[cut::2]), ("b", texts[cut + 1 :: 2])]
    assert findings(known, data.draw(st.permutations(parts))) == whole


def folder(path: Path, name: str, texts: list[str]) -> TaskConfig:
    rows = [{"sentence1": text, "sentence2": text, "score": n % 6} for n, text in enumerate(texts)]
    write_jsonl(path / name / "test.jsonl", rows)
    return TaskConfig(name=name, path=str(path / name), type="sts")


def dataset(path: Path, name: str, rows: list[dict[str, Any]]) -> DatasetConfig:
    source = write_jsonl(path / f"{name}.jsonl", rows)
    return DatasetConfig(name=name, source=str(source), task_type="retrieval")


def make_corpus(store: Store, path: Path, config: EvaluationConfig, **fields: Any) -> Artifact:
    """Two datasets of 60 rows with planted texts of the tasks of `make_tasks`."""
    first = [{"query": f"{digest(n)} asked", "pos": [f"{digest(n)} answered"]} for n in range(60)]
    first[3]["query"] = f"{LONG}!!"  # near only: a text that is equal would count as exact
    first[4]["pos"] = ["What IS ai"]
    second = [{"query": f"{digest(n)} said", "pos": [f"{digest(n)} written", LONG.title()]} for n in range(5)]
    second += [{"query": f"{digest(n)} said", "pos": [f"{digest(100 + n)} {digest(n)[:3]}"]} for n in range(20)]
    second += [{"query": f"{digest(n)} free", "pos": ["free"]} for n in range(5)]
    datasets = (dataset(path, "first", first), dataset(path, "second", second))
    corpus = CorpusConfig(datasets=datasets, max_query_tokens=32, max_passage_tokens=48, **fields)
    return ingest(store, corpus, spec(), evaluation_texts(config), near_texts=near_texts(config))


def make_tasks(path: Path) -> EvaluationConfig:
    many = folder(path, "many", [digest(100 + n) for n in range(20)])
    few = folder(path, "few", [LONG, "what is ai", "nothing like this occurs in the training data"])
    return EvaluationConfig(in_domain=(few,), selection=(many,))


@pytest.mark.ray
def test_the_report_on_a_corpus(tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config, store, events = make_tasks(tmp_path), Store(tmp_path / "store"), []
    config = config.model_copy(update={"out_of_domain": (TaskConfig(name="STS12"),)})
    corpus = make_corpus(store, tmp_path, config, decontaminate=False)
    made = contamination(store, corpus, config, report=events.append)
    rows = {row["task"]: row for row in contamination_table(made)}
    assert rows["few"] == {
        "task": "few",
        "kind": "texts",
        "texts": 3,
        "exact": 2,
        "exact %": 66.67,
        "near": 0,
        "near %": 0.0,
        "from": "first: 2; second: 1",
    }
    assert made.figures["tasks"]["few"]["kinds"]["texts"]["datasets"]["first"] == {"exact": 1, "near": 1}
    assert (rows["many"]["exact"], rows["many"]["near"], rows["many"]["from"]) == (0, 20, "second: 20")
    assert rows["STS12"]["kind"] == "not checked"
    assert rows["STS12"]["from"].startswith("its data cannot be read on this machine: ")
    assert rows["STS12"]["texts"] is None
    assert made.figures["examples"] == {"first": 60, "second": 30}

    pairs = contamination_pairs(made)
    assert [pair["found"] for pair in pairs if pair["task"] == "few"] == ["near", "exact", "exact"]
    assert len([pair for pair in pairs if pair["task"] == "many"]) == PAIRS
    near = next(pair for pair in pairs if pair["task"] == "few")
    assert (near["dataset"], near["evaluation text"], near["training text"]) == ("first", LONG, f"{LONG}!!")
    assert (events[-1].done, events[-1].total) == (1, 1)

    monkeypatch.setattr("boom_ray.evaluation.contamination._compare_parts", None)
    assert contamination(store, corpus, config) == made, "the store has it"


@pytest.mark.ray
def test_any_number_of_parts_gives_one_report(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, made = make_tasks(tmp_path), []
    for buckets in (1, 8):
        monkeypatch.setattr(ingest_module, "bucket_count", lambda size, buckets=buckets: buckets)
        store = Store(tmp_path / str(buckets))
        corpus = make_corpus(store, tmp_path, config, decontaminate=False)
        assert len(corpus.figures["parts"]["first"]) == buckets
        made.append(contamination(store, corpus, config))
    assert made[0].figures == made[1].figures
    assert made[0].key == made[1].key


@pytest.mark.ray
def test_what_ingest_left_out_is_not_in_the_report(tmp_path: Path, ray_cluster: None) -> None:
    config, store = make_tasks(tmp_path), Store(tmp_path / "store")
    found = {}
    for name, wanted in (("exact", None), ("near", {})):
        corpus = make_corpus(store, tmp_path, config, near_duplicates=wanted)
        artifact = contamination(store, corpus, config)
        found[name] = {row["task"]: (row["exact"], row["near"]) for row in contamination_table(artifact)}
        left_out = {one: facts["near_duplicates"] for one, facts in corpus.figures["datasets"].items()}
        assert left_out == ({"first": 1, "second": 20} if name == "near" else {"first": 0, "second": 0})
    assert found == {"exact": {"few": (0, 1), "many": (0, 20)}, "near": {"few": (0, 0), "many": (0, 0)}}


@pytest.mark.ray
def test_a_changed_task_or_threshold_is_another_report(tmp_path: Path, ray_cluster: None) -> None:
    config, store = make_tasks(tmp_path), Store(tmp_path / "store")
    corpus = make_corpus(store, tmp_path, config)
    keys = [contamination(store, corpus, config, one).key for one in (None, NearDuplicatesConfig(threshold=0.9))]
    renamed = config.in_domain[0].model_copy(update={"instruction": "Find"})
    assert contamination(store, corpus, config.model_copy(update={"in_domain": (renamed,)})).key == keys[0]
    folder(tmp_path, "few", [LONG, "what is ml", "nothing like this"])
    keys.append(contamination(store, corpus, config).key)
    assert len(set(keys)) == 3


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    from boom_ray.evaluation.contamination import Comparison

    with pytest.raises(StoreError, match="Part 0123 of the corpus is missing"):
        compare_part(Comparison(Store(tmp_path), held(t=[LONG])), "d", "0123")


def test_long_texts_are_cut_in_examples() -> None:
    from boom_ray.evaluation.contamination import _task_figures

    text = "word " * 200
    known, items = HeldTexts.of({"t": [HeldOut("texts", (text,))]}, DEFAULT)
    figures = _task_figures(items["t"], known, compare(known, "d", [text]))
    assert figures["kinds"]["texts"] == {"texts": 1, "exact": 1, "near": 0, "datasets": {"d": {"exact": 1, "near": 0}}}
    (pair,) = figures["pairs"]
    assert pair["training text"] == pair["evaluation text"] == f"{text[:SHOWN]}…"
    assert pair["similarity"] == 1.0
    assert np.isscalar(pair["similarity"])
