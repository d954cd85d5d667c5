"""Reading any range of any tensor, and what is said about files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from boom_ray.errors import MergeError, ModelError
from boom_ray.merging.checkpoint import open_checkpoint
from tests.plain_model import WriteModel

TENSORS = {"a": torch.arange(12.0).view(3, 4), "b": torch.arange(5).bfloat16(), "ids": torch.arange(3)}


def read(folder: Path, key: str, start: int, stop: int) -> torch.Tensor:
    with open_checkpoint(folder, "bag") as checkpoint:
        return checkpoint.read(checkpoint.tensors[key], start, stop, torch.empty(4096, dtype=torch.uint8)).clone()


@pytest.mark.parametrize(("key", "start", "stop"), [("a", 0, 12), ("a", 3, 9), ("b", 1, 5), ("ids", 0, 3), ("a", 4, 4)])
def test_a_range_of_elements(write_model: WriteModel, key: str, start: int, stop: int) -> None:
    found = read(write_model("bag", TENSORS), key, start, stop)
    assert torch.equal(found, TENSORS[key].flatten()[start:stop])
    assert found.dtype == TENSORS[key].dtype


def test_shards_and_modules(write_model: WriteModel) -> None:
    folder = write_model("bag", {"unused": torch.ones(1)}, modules={"2_Dense": {"linear.weight": torch.eye(4)}})
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(("a", "b")):
        save_file({name: TENSORS[name]}, folder / f"part{number}.safetensors")
    index = {"weight_map": {"a": "part0.safetensors", "b": "part1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with open_checkpoint(folder, "bag") as checkpoint:
        assert list(checkpoint.tensors) == ["2_Dense/linear.weight", "a", "b"]
        assert checkpoint.transformer == ""
    assert torch.equal(read(folder, "b", 0, 5), TENSORS["b"])
    (folder / "part1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"part1\.safetensors, which is missing"):
        open_checkpoint(folder, "bag")


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_file_is_named(write_model: WriteModel, keep: int) -> None:
    path = write_model("bag7", TENSORS) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MergeError, match=r"bag7/model\.safetensors of bag is not a complete safetensors file"):
        open_checkpoint(path.parent, "bag")


def test_a_file_that_shrinks_while_it_is_read(write_model: WriteModel) -> None:
    path = write_model("bag", TENSORS) / "model.safetensors"
    with open_checkpoint(path.parent, "bag") as checkpoint:
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(MergeError, match="tensor b: the file ends too early"):
            checkpoint.read(checkpoint.tensors["b"], 0, 5, torch.empty(64, dtype=torch.uint8))


def test_weights_that_are_not_plain_safetensors(write_model: WriteModel) -> None:
    dense = write_model("pickled", TENSORS, modules={"2_Dense": {"linear.weight": torch.eye(4)}}) / "2_Dense"
    (dense / "model.safetensors").rename(dense / "pytorch_model.bin")
    with pytest.raises(MergeError, match=r"2_Dense has its weights only as pytorch_model\.bin"):
        open_checkpoint(dense.parent, "bag")
    (dense / "pytorch_model.bin").rename(dense / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="fold it into the base"):
        open_checkpoint(dense.parent, "bag")
    low = write_model("low", {"a": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(MergeError, match="tensor a has type F8_E4M3"):
        open_checkpoint(low, "bag")
    with pytest.raises(ModelError, match="no model folder"):
        open_checkpoint(low / "nothing", "bag")
