from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import DenseConfig, LoraConfig
from boom_ray.errors import MergeError
from boom_ray.merging.probe.members import Source
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.encoder import load_encoder, save_model
from boom_ray.model.texts import padded
from boom_ray.model.tokenizer import load_tokenizer
from tests.merging.probe.world import MODEL

CPU = torch.device("cpu")
TEXTS = padded([np.array([2, 7, 9, 3], np.int32), np.array([2, 8, 3], np.int32)])


def rename(world, tmp_path, change) -> MemberRef:
    """Member ``a`` with other tensor names."""
    folder = shutil.copytree(world.folder / "a", tmp_path / "renamed")
    weights = {change(name): value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return MemberRef("renamed", str(folder), "x", 1)


def test_parameters_carry_the_names_of_the_file(world):
    running = world.source("a").load(world.store, CPU)
    stored = load_file(world.folder / "a" / "model.safetensors")
    assert running.trainable().keys() == {key for key in stored if "pooler" not in key}
    for key, parameter in running.trainable().items():
        assert torch.equal(parameter, stored[key])
    assert not running.encoder.training


def test_a_prefix_before_every_name_is_understood(world, tmp_path):
    ref = rename(world, tmp_path, lambda name: f"bert.{name}")
    running = Source(ref, None, MODEL).load(world.store, CPU)
    plain = world.source("a").load(world.store, CPU)
    assert running.trainable().keys() == {f"bert.{key}" for key in plain.trainable()}
    assert torch.equal(running.encoder(TEXTS), plain.encoder(TEXTS))


def test_a_parameter_that_the_files_name_otherwise_is_an_error(world, tmp_path):
    ref = rename(world, tmp_path, lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma"))
    with pytest.raises(MergeError, match=r"Parameter embeddings.LayerNorm.weight of renamed, of shape \[16\]"):
        Source(ref, None, MODEL).load(world.store, CPU)


def test_linear_layers_behind_the_pooling_are_parameters_too(world, tmp_path):
    config = MODEL.model_copy(update={"dense": (DenseConfig(dimension=8),)})
    encoder = load_encoder(world.folder / "a", config)
    save_model(encoder, load_tokenizer(world.folder / "a", config), tmp_path, {}, 64)
    running = Source(MemberRef("dense", str(tmp_path), "z", 1), None, MODEL).load(world.store, CPU)
    keys = running.trainable().keys()
    assert {key for key in keys if key.startswith("2_Dense/")} == {"2_Dense/linear.weight", "2_Dense/linear.bias"}
    assert torch.equal(running.encoder(TEXTS), encoder.eval()(TEXTS))


def test_adapters_run_as_folded(world, tmp_path):
    encoder = load_encoder(world.folder / "a", MODEL.model_copy(update={"lora": LoraConfig(rank=2, alpha=4)}))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    encoder.transformer.save_pretrained(tmp_path / "adapter")
    expected = encoder.eval()(TEXTS)
    source = Source(MemberRef("adapter", str(tmp_path / "adapter"), "y", 1), world.ref("a"), MODEL)
    running = source.load(world.store, CPU)
    torch.testing.assert_close(running.encoder(TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(world.source("a").load(world.store, CPU).encoder(TEXTS), expected, atol=1e-2)
    assert source.fingerprints(world.store) == {"member": "y", "base": world.ref("a").fingerprint}
    plain = Source(world.ref("b"), world.ref("a"), MODEL)
    assert plain.fingerprints(world.store) == {"member": world.ref("b").fingerprint}
    assert source.identity(world.store) == {"pooling": "mean", "normalize": True}
