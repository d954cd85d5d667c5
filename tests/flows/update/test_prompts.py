"""Prompts of updated models: nothing that users call changes, and models to merge agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from boom_ray.config import DatasetConfig, ModelConfig
from boom_ray.flows.update.prompts import FILE, KIND, extended, with_prompts
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import read_json, stored_prompts, weights_fingerprint, write_json
from boom_ray.store import Store
from tests.tiny_model import make_tiny_model

MODEL = ModelConfig(query_template="Do: {task}\nQ: {text}", passage_template="P {task}: {text}")
STORED = {"query": "Do: find\nQ: ", "document": "P : "}


def dataset(**fields: str | bool) -> DatasetConfig:
    return DatasetConfig.model_validate({"name": "new", "source": "x", "task_type": "retrieval", **fields})


def test_a_dataset_with_the_instruction_that_there_is_adds_nothing() -> None:
    assert extended(STORED, MODEL, [dataset(instruction="find")]) == STORED
    assert extended({}, ModelConfig(), [dataset()]) == {}


@pytest.mark.parametrize(
    ("fields", "added"),
    [
        ({"instruction": "rank"}, {"new": "Do: rank\nQ: "}),
        ({"instruction": "find", "passage_instruction": "law"}, {"new-document": "P law: "}),
        ({"instruction": "pair", "symmetric": True}, {"new": "Do: pair\nQ: ", "new-document": "Do: pair\nQ: "}),
    ],
)
def test_another_instruction_gets_a_name_of_its_own(fields: dict[str, str | bool], added: dict[str, str]) -> None:
    assert extended(STORED, MODEL, [dataset(**fields)]) == STORED | added


def test_without_an_instruction_a_model_that_has_one_says_so() -> None:
    assert extended({"query": "find: "}, ModelConfig(), [dataset()]) == {"query": "find: ", "new": ""}


def test_a_model_gets_other_prompts_as_a_copy(tmp_path: Path) -> None:
    folder, store = make_tiny_model(tmp_path / "model"), Store(tmp_path / "store")
    write_json(folder / FILE, {"prompts": {"query": "q: "}, "default_prompt_name": None})
    ref = MemberRef("one", str(folder), weights_fingerprint(folder), 5)
    assert with_prompts(store, ref, {"query": "q: "}) == ref and not store.finished(KIND)
    wanted = {"query": "q: ", "new": "n: "}
    copy = with_prompts(store, ref, wanted)
    place = store.resolve(copy.path)
    assert (copy.name, copy.fingerprint, copy.examples) == (ref.name, ref.fingerprint, ref.examples)
    assert stored_prompts(place) == wanted and stored_prompts(folder) == {"query": "q: "}
    assert read_json(place / FILE)["default_prompt_name"] is None
    assert weights_fingerprint(place) == ref.fingerprint
    assert (place / "model.safetensors").samefile(folder / "model.safetensors")
    assert with_prompts(store, ref, wanted).path == copy.path and len(store.finished(KIND)) == 1
    one, two = (SentenceTransformer(str(path), device="cpu") for path in (folder, place))
    assert (one.encode(["n: a cat"], prompt="") == two.encode(["a cat"], prompt_name="new")).all()
