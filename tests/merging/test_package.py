"""Which files the product takes over from the first member."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from boom_ray.errors import MergeError
from boom_ray.merging.checkpoint import open_checkpoint
from boom_ray.merging.package import describe, write_dtype
from tests.plain_model import FILES, WriteModel

TENSORS = {"w": torch.ones(2)}


def test_all_but_weights_and_traces_of_training(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS)
    extra = ["LICENSE", "vocab.txt", "chat_template.jinja"]
    traces = ["README.md", "artifact.json", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", ".git/config"]
    traces += ["checkpoint-9/model.safetensors", "consolidated.safetensors", "model.safetensors.index.json.bak/x.pt"]
    for name in extra + traces:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    package = describe(open_checkpoint(folder, "bag0"))
    assert sorted(package.copied) == sorted([*FILES, *extra])
    assert sorted(package.left_out) == sorted(traces)


def test_weights_outside_of_all_modules_are_refused(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS)
    (folder / "query_0_Dense").mkdir()
    save_file(TENSORS, folder / "query_0_Dense" / "model.safetensors")
    with pytest.raises(MergeError, match=r"query_0_Dense/model\.safetensors of bag0 .* belongs to no module"):
        describe(open_checkpoint(folder, "bag0"))


def test_the_fingerprint_follows_the_copied_files_only(write_model: WriteModel) -> None:
    one = describe(open_checkpoint(write_model("one", TENSORS), "one"))
    (write_model("two", TENSORS) / "README.md").write_text("another")
    two = describe(open_checkpoint(one.folder.parent / "two", "two"))
    assert one.fingerprint() == two.fingerprint()
    (two.folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert one.fingerprint() != two.fingerprint()


def test_the_config_names_the_type_of_the_weights(write_model: WriteModel) -> None:
    folder = write_model("bag0", TENSORS, files={"config.json": {"model_type": "bert", "torch_dtype": "float16"}})
    write_dtype(folder, torch.bfloat16)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "bert", "dtype": "bfloat16"}
