"""Merged values: exact where they can be, equal to numpy elsewhere, and the same whatever the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event, silent
from boom_ray.merging import stream
from boom_ray.merging.checkpoint import open_checkpoint
from boom_ray.merging.methods import METHODS
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.merging.statistics import BLOCK
from boom_ray.merging.stream import TensorMerger, write_merged
from tests.plain_model import WriteModel, write_plain_model

CONFIGS = (
    MergeConfig(method="linear"),
    MergeConfig(method="task_arithmetic"),
    MergeConfig(method="multislerp"),
    MergeConfig(method="multislerp", base="base"),
)


def merge_folders(
    folders: Sequence[Path], base: Path, config: MergeConfig, target: Path, chunk: int = 1 << 20, **options: object
) -> dict[str, torch.Tensor]:
    members = [open_checkpoint(folder, folder.name) for folder in folders]
    recipe = resolve(config, [MemberRef(folder.name, "", "", 1) for folder in folders])
    opened_base = open_checkpoint(base, "base") if recipe.uses_base else None
    merger = TensorMerger(members, opened_base, recipe, chunk)
    options = {"report": silent} | options
    write_merged(merger, members[0], config.output_dtype, target, **options)  # type: ignore[arg-type]
    return {name: tensor for path in target.rglob("*.safetensors") for name, tensor in load_file(path).items()}


def noisy(seed: int, shape: tuple[int, ...] = (70, 131), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    common = torch.randn(shape, generator=torch.Generator().manual_seed(99))
    return (common + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def expected(config: MergeConfig, members: list[torch.Tensor], base: torch.Tensor) -> np.ndarray:
    """The method in numpy float64, on whole tensors."""
    offset = base.double().numpy().ravel() if config.base == "base" or config.method == "task_arithmetic" else 0.0
    rows = np.stack([member.double().numpy().ravel() - offset for member in members])
    weights = np.full(len(rows), 1 / len(rows))
    coefficients = METHODS[config.method].coefficients(rows @ rows.T, weights, {"scale": config.scale})
    return (offset + coefficients @ rows).reshape(base.shape)


@pytest.mark.parametrize("config", [*CONFIGS, MergeConfig(method="task_arithmetic", scale=1.7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_those_of_float64_rounded_once(
    write_model: WriteModel, tmp_path: Path, config: MergeConfig, dtype: torch.dtype
) -> None:
    tensors = [noisy(seed, dtype=dtype) for seed in range(4)]
    folders = [write_model(f"bag{seed}", {"w": tensor}) for seed, tensor in enumerate(tensors)]
    found = merge_folders(folders[1:], folders[0], config, tmp_path / "out")["w"]
    assert found.dtype == dtype
    exact = torch.from_numpy(expected(config, tensors[1:], tensors[0]))
    torch.testing.assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps * 0.51 + 1e-14, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS)
def test_chunks_and_shards_do_not_change_a_bit(write_model: WriteModel, tmp_path: Path, config: MergeConfig) -> None:
    def tensors(seed: int) -> dict[str, torch.Tensor]:
        wide = {"wide": noisy(seed, (5, 1000), torch.float64), "ids": torch.arange(20_000)}
        return {"w": noisy(seed, (300, 211)), "b": noisy(seed, (7,)), **wide}

    folders = [write_model(f"bag{seed}", tensors(seed)) for seed in range(4)]
    whole = merge_folders(folders[1:], folders[0], config, tmp_path / "whole")
    small = merge_folders(folders[1:], folders[0], config, tmp_path / "small", chunk=1)
    sharded = merge_folders(folders[1:], folders[0], config, tmp_path / "sharded", chunk=9 * BLOCK, shard_bytes=1000)
    assert len(list((tmp_path / "sharded").iterdir())) > 2
    for name, tensor in whole.items():
        assert torch.equal(tensor, small[name]) and torch.equal(tensor, sharded[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS)
@given(count=st.integers(1, 5), raw=st.lists(st.integers(1, 9), min_size=5, max_size=5), seed=st.integers(0, 9))
@settings(max_examples=5, deadline=None)
def test_equal_members_give_exactly_that_tensor(
    tmp_path_factory: pytest.TempPathFactory,
    config: MergeConfig,
    dtype: torch.dtype,
    count: int,
    raw: list[int],
    seed: int,
) -> None:
    place = tmp_path_factory.mktemp("equal")
    tensor = noisy(seed, (40, 30), dtype)
    base = write_plain_model(place / "base", {"w": noisy(seed + 1, (40, 30))})
    folders = [write_plain_model(place / f"bag{index}", {"w": tensor}) for index in range(count)]
    config = config.model_copy(update={"weights": tuple(float(value) for value in raw[:count])})
    assert torch.equal(merge_folders(folders, base, config, place / "out")["w"], tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("config", [config for config in CONFIGS if config.base == "base" or "task" in config.method])
def test_members_equal_to_the_base_give_exactly_the_base(
    write_model: WriteModel, tmp_path: Path, config: MergeConfig, scale: float, dtype: torch.dtype
) -> None:
    folders = [write_model(f"bag{index}", {"w": noisy(0, dtype=dtype)}) for index in range(4)]
    config = config.model_copy(update={"scale": scale})
    assert torch.equal(merge_folders(folders[1:], folders[0], config, tmp_path / "out")["w"], noisy(0, dtype=dtype))


@pytest.mark.parametrize("config", CONFIGS)
def test_all_weight_on_one_member_gives_exactly_its_tensor(
    write_model: WriteModel, tmp_path: Path, config: MergeConfig
) -> None:
    folders = [write_model(f"bag{seed}", {"w": noisy(seed)}) for seed in range(4)]
    config = config.model_copy(update={"weights": (0.0, 2.0, 0.0)})
    assert torch.equal(merge_folders(folders[1:], folders[0], config, tmp_path / "out")["w"], noisy(2))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_order_of_members_does_not_matter(write_model: WriteModel, tmp_path: Path, config: MergeConfig) -> None:
    folders = [write_model(f"bag{seed}", {"w": noisy(seed)}) for seed in range(4)]
    one = merge_folders(folders[1:], folders[0], config, tmp_path / "one")["w"]
    other = merge_folders(folders[:0:-1], folders[0], config, tmp_path / "other")["w"]
    torch.testing.assert_close(one, other, rtol=1.3e-7, atol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_scalars_empty_zero_tied_and_integer_tensors(
    write_model: WriteModel, tmp_path: Path, config: MergeConfig
) -> None:
    def tensors(seed: int) -> dict[str, torch.Tensor]:
        return {
            "scalar": torch.tensor(float(seed)),
            "empty": torch.empty(0, 3),
            "zero": torch.zeros(5),
            "embed": noisy(seed),
            "head": noisy(seed),
            "ids": torch.arange(7),
            "mask": torch.tensor([True, False]),
        }

    folders = [write_model(f"bag{seed}", tensors(seed)) for seed in (1, 2, 4)]
    found = merge_folders(folders[1:], folders[0], config, tmp_path / "out")
    assert found.keys() == tensors(0).keys()
    assert found["scalar"] == 3 and found["empty"].shape == (0, 3)
    assert torch.equal(found["zero"], torch.zeros(5)) and torch.equal(found["embed"], found["head"])
    assert torch.equal(found["ids"], torch.arange(7)) and found["mask"].tolist() == [True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("config", CONFIGS)
def test_nan_is_named_with_member_and_tensor(
    write_model: WriteModel, tmp_path: Path, config: MergeConfig, value: float
) -> None:
    broken = noisy(2)
    broken[69, 130] = value
    good = {"a": noisy(0), "b": noisy(1)}
    folders = [write_model("base", good), write_model("bag0", good), write_model("bag1", good | {"b": broken})]
    with pytest.raises(MergeError, match=r"Tensor b of bag1 .*NaN or infinity"):
        merge_folders(folders[1:], folders[0], config, tmp_path / "out")


def test_large_float64_values_are_not_taken_for_infinity(write_model: WriteModel, tmp_path: Path) -> None:
    folders = [write_model(name, {"w": torch.full((9,), 1e308, dtype=torch.float64)}) for name in ("bag0", "bag1")]
    found = merge_folders(folders, folders[0], MergeConfig(method="linear"), tmp_path / "out")["w"]
    assert torch.equal(found, torch.full((9,), 1e308, dtype=torch.float64))


def test_differing_integers_and_overflow_are_refused(write_model: WriteModel, tmp_path: Path) -> None:
    folders = [write_model(f"bag{index}", {"ids": torch.arange(3) + index}) for index in range(2)]
    with pytest.raises(MergeError, match="Integer tensor ids differs between bag0 and bag1"):
        merge_folders(folders, folders[0], CONFIGS[0], tmp_path / "one")
    big = [write_model(f"big{index}", {"w": torch.full((3,), 1e6)}) for index in range(2)]
    with pytest.raises(MergeError, match=r"tensor w does not fit into torch\.float16"):
        merge_folders(big, big[0], MergeConfig(method="linear", output_dtype="float16"), tmp_path / "two")


def test_every_tensor_that_fits_in_a_chunk_is_read_once(write_model: WriteModel, tmp_path: Path) -> None:
    folders = [write_model(f"bag{seed}", {"w": noisy(seed), "b": noisy(seed, (9,))}) for seed in range(3)]
    members = [open_checkpoint(folder, folder.name) for folder in folders]
    recipe = resolve(CONFIGS[2], [MemberRef(folder.name, "", "", 1) for folder in folders])
    merger = TensorMerger(members, None, recipe, 1 << 20)
    merged = write_merged(merger, members[0], "members", tmp_path / "out", silent)
    assert merged.bytes_read == 3 * merged.bytes_written == 3 * 4 * (70 * 131 + 9)
    assert merged.parameters == 70 * 131 + 9 and list(merged.coefficients) == ["b", "w"]


def test_progress_ends_at_the_total(write_model: WriteModel, tmp_path: Path) -> None:
    folders = [write_model(f"bag{seed}", {"w": noisy(seed, (500, 300))}) for seed in range(2)]
    events: list[Event] = []
    merge_folders(folders, folders[0], CONFIGS[0], tmp_path / "out", chunk=16 * BLOCK, report=events.append)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert len(events) > 3 and events[-1].done == events[-1].total == 500 * 300 * 4


def test_memory_is_bounded_by_the_chunks(write_model: WriteModel, tmp_path: Path) -> None:
    """The buffers of a merger do not grow with the tensors."""
    folders = [write_model(f"bag{seed}", {"w": torch.ones(3 * stream.STRIP)}) for seed in range(2)]
    members = [open_checkpoint(folder, folder.name) for folder in folders]
    merger = TensorMerger(members, None, resolve(CONFIGS[0], [MemberRef("a", "", "", 1)] * 2), 16 * BLOCK)
    pieces = [piece.nbytes for piece in merger.pieces("w", torch.float32)]
    assert max(pieces) <= 16 * BLOCK and sum(pieces) == 12 * stream.STRIP
