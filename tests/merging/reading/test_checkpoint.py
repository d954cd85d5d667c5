"""Reading any range of any tensor, and what is said about files that cannot be read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from boom_ray.errors import MergeError, ModelError
from boom_ray.merging.reading.checkpoint import open_checkpoint, open_weights
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


def shard(folder: Path, index: dict[str, str], **files: dict[str, torch.Tensor]) -> Path:
    (folder / "model.safetensors").unlink()
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


A, B = {"a": TENSORS["a"]}, {"b": TENSORS["b"]}


@pytest.mark.parametrize(
    ("index", "files", "text"),
    [
        (
            {"a": "x.safetensors", "c": "x.safetensors"},
            {"x": A},
            r"index\.json says that tensor c is in x\.safetensors",
        ),
        ({"a": "x.safetensors", "b": "x.safetensors"}, {"x": A, "y": B}, "tensor b is in x.safetensors, and it is not"),
        ({"a": "x.safetensors", "b": "y.safetensors"}, {"x": A, "y": A | B}, "tensor a is in both .*x.* and .*y"),
    ],
)
def test_an_index_that_does_not_fit_its_files(
    write_model: WriteModel, index: dict[str, str], files: dict[str, dict[str, torch.Tensor]], text: str
) -> None:
    folder = shard(write_model("bag", TENSORS), index, **files)
    with pytest.raises(MergeError, match=f"bag: .*{text}"):
        open_checkpoint(folder, "bag")


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map(write_model: WriteModel, content: str) -> None:
    folder = shard(write_model("bag", TENSORS), {})
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"index\.json has no weight_map"):
        open_checkpoint(folder, "bag")


def test_a_missing_shard_of_another_module(write_model: WriteModel) -> None:
    folder = write_model("bag", TENSORS, modules={"2_Dense": {"linear.weight": torch.eye(4)}})
    shard(folder / "2_Dense", {"linear.weight": "x.safetensors"})
    with pytest.raises(MergeError, match=r"bag: .*2_Dense/.* lists x\.safetensors, which is missing"):
        open_checkpoint(folder, "bag")


def test_threads_read_at_once(write_model: WriteModel) -> None:
    tensors = {str(number): torch.arange(1000) + number for number in range(20)}
    with open_checkpoint(write_model("bag", tensors), "bag") as checkpoint, ThreadPoolExecutor(8) as pool:

        def same(key: str) -> bool:
            found = checkpoint.read(checkpoint.tensors[key], 10, 900, torch.empty(8000, dtype=torch.uint8))
            return torch.equal(found, tensors[key][10:900])

        assert all(pool.map(same, [*tensors] * 5))
        assert len(checkpoint._files) == 1


def test_tensors_without_elements(write_model: WriteModel) -> None:
    assert read(write_model("bag", {"none": torch.empty(0, 3)}), "none", 0, 0).shape == (0,)


def test_weights_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    save_file(A, tmp_path / "statistics.safetensors")
    save_file(B, tmp_path / "2_Dense" / "model.safetensors")
    with pytest.raises(MergeError, match="stats: there are no safetensors files in"):
        open_weights(tmp_path / "nothing", "stats")
    save_file(A, tmp_path / "model.safetensors")
    (tmp_path / "statistics.safetensors").unlink()
    with open_weights(tmp_path, "stats") as checkpoint:
        assert list(checkpoint.tensors) == ["2_Dense/b", "a"]
        assert checkpoint.read_type(checkpoint.tensors["a"]) == torch.float32


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
    with pytest.raises(ModelError, match=r"2_Dense has its weights only as pytorch_model\.bin"):
        open_checkpoint(dense.parent, "bag")
    (dense / "pytorch_model.bin").rename(dense / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="fold it into the base"):
        open_checkpoint(dense.parent, "bag")
    (dense / "adapter_model.safetensors").unlink()
    assert list(open_checkpoint(dense.parent, "bag").tensors) == sorted(TENSORS)
    low = write_model("low", {"a": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(MergeError, match="tensor a has type F8_E4M3"):
        open_checkpoint(low, "bag")
    with pytest.raises(ModelError, match="no model folder"):
        open_checkpoint(low / "nothing", "bag")
