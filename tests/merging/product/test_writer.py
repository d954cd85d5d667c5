"""Files written piece by piece are what the library reads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from boom_ray.merging.product.writer import Entry, SafetensorsWriter, plan_shards, write_index

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
ENTRIES_X = [Entry("x", torch.float32, (3,))]


def write(folder: Path, limit: int) -> list[Path]:
    shards = plan_shards(ENTRIES, limit)
    for name, shard in shards:
        with SafetensorsWriter(folder / name, shard) as writer:
            for entry in reversed(shard):
                flat = TENSORS[entry.name].flatten()
                for start in reversed(range(0, len(flat), 2)):
                    writer.put(entry.name, start, flat[start : start + 2])
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


def test_threads_may_write_at_once(tmp_path: Path) -> None:
    values = torch.arange(100_000, dtype=torch.int32)
    entries = [Entry("a", torch.int32, (100, 1000)), Entry("b", torch.int32, (100_000,))]
    with SafetensorsWriter(tmp_path / "f", entries) as writer, ThreadPoolExecutor(8) as pool:
        jobs = [(name, start) for start in range(0, 100_000, 700) for name in ("b", "a")]
        list(pool.map(lambda job: writer.put(*job, values[job[1] : job[1] + 700]), jobs))
    found = load_file(tmp_path / "f")
    assert torch.equal(found["a"], values.view(100, 1000)) and torch.equal(found["b"], values)


def test_missing_bytes_are_noticed(tmp_path: Path) -> None:
    entries = [Entry("x", torch.float32, (3,)), Entry("y", torch.float32, (1,))]
    with pytest.raises(AssertionError, match="8 bytes of x"), SafetensorsWriter(tmp_path / "f", entries) as writer:
        writer.put("y", 0, torch.ones(1))
        writer.put("x", 2, torch.ones(1))


def test_an_error_inside_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(KeyError), SafetensorsWriter(tmp_path / "f", [Entry("x", torch.float32, (3,))]) as writer:
        writer.put("z", 0, torch.ones(1))


@pytest.mark.parametrize(
    ("start", "values", "text"),
    [
        (2, torch.ones(2), "x ends before element 4"),
        (0, torch.ones(3).double(), "x is torch.float32"),
        (-1, torch.ones(1), "x"),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, start: int, values: torch.Tensor, text: str) -> None:
    with pytest.raises(AssertionError, match=text), SafetensorsWriter(tmp_path / "f", ENTRIES_X) as writer:
        writer.put("x", start, values)
