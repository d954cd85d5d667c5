from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from boom_ray.errors import ModelError
from boom_ray.evaluation.routed import check_model, inner_modules, is_routed, model_hashes
from boom_ray.model.folder import prompts_digest, weights_fingerprint
from tests.evaluation.router_model import make_router_model
from tests.tiny_model import make_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_router_model(tmp_path / "model")


def test_a_folder_without_a_router_is_what_it_was(tmp_path: Path) -> None:
    plain = make_tiny_model(tmp_path / "plain")
    assert not is_routed(plain) and not is_routed(tmp_path / "nowhere")
    assert model_hashes(plain) == (weights_fingerprint(plain), prompts_digest(plain))
    check_model(plain)


def test_its_inner_modules_are_found(folder: Path) -> None:
    assert is_routed(folder)
    found = {place.name: kind for place, kind in inner_modules(folder).items()}
    assert found == {
        f"{role}_{n}_{kind}": kind for role in ("query", "document") for n, kind in ((0, "Transformer"), (1, "Pooling"))
    }
    check_model(folder)


def test_hashes_do_not_depend_on_the_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert model_hashes(tmp_path / "copy") == model_hashes(folder)


@pytest.mark.parametrize("role", ["query", "document"])
def test_the_weights_of_every_route_count(folder: Path, role: str) -> None:
    weights, rest = model_hashes(folder)
    path = folder / f"{role}_0_Transformer" / "model.safetensors"
    tensors = load_file(path)
    tensors["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(tensors, path)
    assert model_hashes(folder)[0] != weights
    assert model_hashes(folder)[1] == rest


@pytest.mark.parametrize(
    "name",
    [
        "router_config.json",
        "query_1_Pooling/config.json",
        "document_0_Transformer/tokenizer.json",
        "config_sentence_transformers.json",
    ],
)
def test_every_setting_counts(folder: Path, name: str) -> None:
    weights, rest = model_hashes(folder)
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    assert model_hashes(folder)[0] == weights
    assert model_hashes(folder)[1] != rest


def test_what_is_missing_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "query_1_Pooling")
    with pytest.raises(ModelError, match="query_1_Pooling is missing"):
        check_model(folder)
    (folder / "query_0_Transformer" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="query_0_Transformer holds no weights"):
        check_model(folder)
    (folder / "router_config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not name the Router's modules"):
        check_model(folder)


@pytest.mark.parametrize("place", ["query_1_Pooling", "1_Normalize"])
def test_pickled_weights_inside_and_behind_are_refused(folder: Path, place: str) -> None:
    (folder / place / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=rf"{place} has its weights only as pytorch_model\.bin, a pickle file"):
        check_model(folder)
