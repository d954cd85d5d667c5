from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import (
    check_folder,
    max_sequence_length,
    modules,
    prompts_digest,
    resolve_base,
    weight_files,
    weights_fingerprint,
)
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("folder") / "model")


@pytest.fixture
def copy(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_a_complete_folder(model):
    check_folder(model)
    assert [module.kind for module in modules(model)] == ["Transformer", "Pooling", "Normalize"]
    assert max_sequence_length(model) == 128
    assert resolve_base(ModelConfig(base=str(model))) == model


def test_sharding_does_not_change_the_fingerprint_but_one_bit_does(model, copy):
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, copy / shard)
    index = {"weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_fingerprint(copy) == weights_fingerprint(model)
    tensors[names[0]] = torch.nextafter(tensors[names[0]], torch.tensor(1e9))
    save_file({name: tensors[name] for name in shards["one.safetensors"]}, copy / "one.safetensors")
    assert weights_fingerprint(copy) != weights_fingerprint(model)
    (copy / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lists two\.safetensors, which is missing"):
        weight_files(copy)


def test_prompts_and_pooling_are_in_their_digest(model, copy):
    assert prompts_digest(copy) == prompts_digest(model)
    path = copy / "config_sentence_transformers.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"prompts": {"query": "find: "}}))
    assert prompts_digest(copy) != prompts_digest(model)


def test_faulty_folders(copy, tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        check_folder(tmp_path / "nothing")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle file"):
        check_folder(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        check_folder(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        check_folder(copy)


def test_pickled_weights_of_any_module_are_refused(copy):
    place = copy / "2_Dense"
    place.mkdir()
    entries = json.loads((copy / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": place.name, "type": "sentence_transformers.models.Dense"}
    (copy / "modules.json").write_text(json.dumps([*entries, dense]))
    (place / "pytorch_model.bin").write_bytes(b"one")
    with pytest.raises(ModelError, match=r"2_Dense has its weights only as pytorch_model\.bin, a pickle file"):
        check_folder(copy)
    save_file({"x": torch.ones(1)}, place / "other.safetensors")  # not the file that would be opened
    with pytest.raises(ModelError, match=r"2_Dense has its weights only as pytorch_model\.bin"):
        check_folder(copy)
    (place / "other.safetensors").rename(place / "model.safetensors")
    check_folder(copy)  # nobody opens a pickle beside it


def test_truncated_weights_are_named(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ModelError, match="truncated"):
        weights_fingerprint(copy)


def test_a_base_that_is_nowhere_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="neither a local folder nor could it be downloaded"):
        resolve_base(ModelConfig(base="nobody/nothing-of-the-kind"))
    for name in ("/nowhere/model", "./nowhere", "../nowhere", "~/nowhere", "~nobody/nowhere", "models/of/mine"):
        with pytest.raises(ModelError, match=r"nowhere|mine") as caught:
            resolve_base(ModelConfig(base=name))
        assert str(caught.value).startswith(f"The model {name} does not exist") and "hub:" not in str(caught.value)
        assert "Give model.base an existing folder or a hub name." in str(caught.value)
    with pytest.raises(ModelError, match=r"test_folder\.py is no folder"):
        resolve_base(ModelConfig(base=__file__))
    with pytest.raises(ModelError, match="no embedded model embedded:x"):
        resolve_base(ModelConfig(base="embedded:x"))
