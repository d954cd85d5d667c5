"""Files written piece by piece are what the library reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from boom_ray.merging.writer import Entry, SafetensorsWriter, plan_shards, write_index

TENSORS = {
    "wide": torch.arange(6, dtype=torch.float64).view(2, 3),
    "plain": torch.randn(5, 1, generator=torch.Generator().manual_seed(0)),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "ids": torch.arange(4).view(1, 4),
    "flag": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 7),
}
ENTRIES = [Entry(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]


def write(folder: Path, limit: int) -> list[Path]:
    shards = plan_shards(ENTRIES, limit)
    for name, shard in shards:
        with SafetensorsWriter(folder / name, shard) as writer:
            for entry in shard:
                for piece in TENSORS[entry.name].flatten().split(2):
                    writer.write(piece)
    write_index(folder, shards)
    return [folder / name for name, _ in shards]


@pytest.mark.parametrize("limit", [10**9, 48, 1])
def test_the_library_reads_back_the_same_tensors(tmp_path: Path, limit: int) -> None:
    found = {name: tensor for path in write(tmp_path, limit) for name, tensor in load_file(path).items()}
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_small_models_are_one_file_that_transformers_accepts(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 10**9)
    assert [item.name for item in tmp_path.iterdir()] == ["model.safetensors"] == [path.name]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_large_models_are_shards_with_an_index(tmp_path: Path) -> None:
    paths = write(tmp_path, 48)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    for path in paths:
        assert path.name.endswith(f"-of-{len(paths):05}.safetensors")
        assert {name for name, file in index["weight_map"].items() if file == path.name} == load_file(path).keys()


def test_missing_bytes_are_noticed(tmp_path: Path) -> None:
    entry = Entry("x", torch.float32, (3,))
    with pytest.raises(AssertionError, match="8 bytes"), SafetensorsWriter(tmp_path / "f", [entry]) as writer:
        writer.write(torch.ones(1))
