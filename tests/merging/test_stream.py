"""Merged values of models on disk: equal to the method in memory, whatever the chunks, threads and files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event, Report, silent
from boom_ray.merging.product.writer import write_index
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.recipe import MemberRef, Recipe, resolve
from boom_ray.merging.stream import Known, Opened, TensorMerger, plan_files, write_file
from boom_ray.merging.tensors.sources import arithmetic
from boom_ray.merging.tensors.vectors import STRIP, Pool
from tests.merging.merged import merged
from tests.plain_model import WriteModel, write_plain_model

CONFIGS: tuple[dict[str, Any], ...] = (
    {"method": "linear"},
    {"method": "task_arithmetic", "parameters": {"scale": 1.7}},
    {"method": "multislerp"},
    {"method": "multislerp", "base": "base"},
    {"method": "karcher", "base": "base"},
    {"method": "model_stock", "parameters": {"granularity": "row"}},
    {"method": "ties"},
    {"method": "dare_ties"},
    {"method": "della_linear"},
    {"method": "breadcrumbs"},
    {"method": "sce", "parameters": {"select": 0.3}},
)


def recipe_of(folders: Sequence[Path], config: MergeConfig) -> Recipe:
    return resolve(config, [MemberRef(folder.name, "", folder.name, 1) for folder in folders])


@contextlib.contextmanager
def opened(folders: Sequence[Path], base: Path | None) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(open_checkpoint(folder, folder.name)) for folder in folders]
        found = stack.enter_context(open_checkpoint(base, "base")) if base else None
        yield Opened(members, [folder.name for folder in folders], found)


def merge_folders(
    folders: Sequence[Path],
    base_folder: Path,
    target: Path,
    chunk: int = 1 << 20,
    threads: int = 1,
    report: Report = silent,
    known: Known | None = None,
    **config: Any,
) -> tuple[dict[str, torch.Tensor], TensorMerger]:
    recipe = recipe_of(folders, MergeConfig.model_validate(config))
    with opened(folders, base_folder if recipe.uses_base else None) as models, Pool(threads) as pool:
        merger = TensorMerger(models, recipe, pool, chunk, known or Known())
        files = plan_files(models.members[0], recipe)
        total, done = sum(file.nbytes for file in files), 0
        for file in files:
            write_file(merger, file, target, report, done, total)
            done += file.nbytes
        write_index(target, [(file.name, list(file.entries)) for file in files])
    return {name: tensor for path in target.rglob("*.safetensors") for name, tensor in load_file(path).items()}, merger


def noisy(seed: int, shape: tuple[int, ...] = (70, 131), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    common = torch.randn(shape, generator=torch.Generator().manual_seed(99))
    return (common + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_as_in_memory(tmp_path: Path, write_model: WriteModel, config: dict[str, Any], dtype: torch.dtype) -> None:
    tensors = [noisy(seed, dtype=dtype) for seed in range(4)]
    folders = [write_model(f"m{index}", {"w": tensor}) for index, tensor in enumerate(tensors)]
    recipe = recipe_of(folders[1:], MergeConfig.model_validate(config))
    wide = torch.float32 if dtype == torch.bfloat16 else torch.float64
    wanted = merged(
        recipe.entry, tensors[1:], tensors[0] if recipe.uses_base else None, None, ["m1", "m2", "m3"], wide,
        **recipe.parameters,
    )  # fmt: skip
    found, _ = merge_folders(folders[1:], folders[0], tmp_path / "out", **config)
    assert found["w"].dtype == dtype and torch.equal(found["w"], wanted.to(dtype))
    assert not torch.equal(found["w"], tensors[1])


@settings(max_examples=8, deadline=None)
@given(
    config=st.sampled_from(CONFIGS),
    chunk=st.sampled_from([1, 100_000, 1 << 30]),
    threads=st.integers(1, 3),
    shape=st.sampled_from([(1, 3 * STRIP + 17), (500, 300), (7,), (), (0, 5)]),
)
def test_bytes_do_not_depend_on_chunks_and_threads(
    tmp_path_factory: pytest.TempPathFactory,
    config: dict[str, Any],
    chunk: int,
    threads: int,
    shape: tuple[int, ...],
) -> None:
    folder = tmp_path_factory.mktemp("m")
    models = [
        write_plain_model(folder / f"m{seed}", {"w": noisy(seed, shape), "v": noisy(seed, (3, 4))}) for seed in range(4)
    ]
    wanted, _ = merge_folders(models[1:], models[0], folder / "wanted", 1 << 30, **config)
    found, _ = merge_folders(models[1:], models[0], folder / "found", chunk, threads, **config)
    assert all(torch.equal(found[name], wanted[name]) for name in ("v", "w")) and found["w"].shape == shape


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_members_that_are_the_base_give_the_base(
    tmp_path: Path, write_model: WriteModel, config: dict[str, Any]
) -> None:
    tensors = {"w": noisy(1, dtype=torch.bfloat16), "i": torch.arange(6), "b": torch.tensor([True, False])}
    folders = [write_model(f"m{index}", tensors) for index in range(4)]
    found, _ = merge_folders(folders[1:], folders[0], tmp_path / "out", **config)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_is_read_once_and_twice_only_when_it_is_larger_than_a_chunk(
    tmp_path: Path, write_model: WriteModel
) -> None:
    tensors = {"small": noisy(1, (10, 10)), "large": noisy(2, (300, 400))}
    folders = [write_model(f"m{index}", tensors) for index in range(3)]
    bytes_of = {name: 2 * tensor.nbytes for name, tensor in tensors.items()}
    _, once = merge_folders(folders[1:], folders[0], tmp_path / "a", 1 << 20, method="multislerp")
    assert once.bytes_read == bytes_of["small"] + bytes_of["large"]
    _, twice = merge_folders(folders[1:], folders[0], tmp_path / "b", 100_000, method="multislerp")
    assert twice.bytes_read == bytes_of["small"] + 2 * bytes_of["large"]
    known = Known(once.grams)
    _, cached = merge_folders(folders[1:], folders[0], tmp_path / "c", 100_000, known=known, method="multislerp")
    assert cached.bytes_read == once.bytes_read and cached.grams == {}
    assert (tmp_path / "c" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_grams_about_the_base_are_not_used_for_whole_weights(tmp_path: Path, write_model: WriteModel) -> None:
    folders = [write_model(f"m{seed}", {"w": noisy(seed)}) for seed in range(4)]
    _, about = merge_folders(folders[1:], folders[0], tmp_path / "a", method="multislerp", base="base")
    known = Known(about.grams, about_base=True)
    found, merger = merge_folders(folders[1:], folders[0], tmp_path / "b", known=known, method="multislerp")
    wanted, alone = merge_folders(folders[1:], folders[0], tmp_path / "c", method="multislerp")
    assert torch.equal(found["w"], wanted["w"]) and known.space("w", has_base=False) is None
    same, other = (Known(grams).space("w", has_base=False) for grams in (alone.grams, merger.grams))
    assert same is not None and other is not None and np.array_equal(same.gram, other.gram)
    assert Known(alone.grams).space("w", has_base=True) is None


def test_the_type_of_the_arithmetic(write_model: WriteModel) -> None:
    half, full = (write_model(name, {"w": noisy(1, dtype=dtype)}) for name, dtype in
                  (("half", torch.bfloat16), ("full", torch.float32)))  # fmt: skip
    from boom_ray.merging.tensors.sources import Place

    with opened([half, full], None) as models:
        places = [Place(one, one.tensors["w"]) for one in models.members]
        assert arithmetic(places[:1], "auto") == torch.float32 and arithmetic(places, "auto") == torch.float64
        assert arithmetic(places, "float32") == torch.float32


def test_output_types_and_an_overflow(tmp_path: Path, write_model: WriteModel) -> None:
    folders = [write_model(f"m{index}", {"w": torch.full((4,), 70_000.0)}) for index in range(2)]
    found, _ = merge_folders(folders, folders[0], tmp_path / "a", method="linear", output_dtype="bfloat16")
    assert found["w"].dtype == torch.bfloat16
    with pytest.raises(
        MergeError, match=r"w has a value of 70000 .*float16 cannot hold; set merge.output_dtype=float32"
    ):
        merge_folders(folders, folders[0], tmp_path / "b", method="linear", output_dtype="float16")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity_are_named(
    tmp_path: Path, write_model: WriteModel, config: dict[str, Any], value: float
) -> None:
    bad = noisy(1)
    bad[3, 5] = value
    folders = [write_model(f"m{index}", {"w": noisy(index) if index != 2 else bad}) for index in range(4)]
    with pytest.raises(MergeError, match=r"Tensor w of m2 \(.*m2\) holds NaN or infinity"):
        merge_folders(folders[1:], folders[0], tmp_path / "out", **config)


def test_a_member_of_weight_zero_is_checked_too(tmp_path: Path, write_model: WriteModel) -> None:
    folders = [write_model(f"m{index}", {"w": torch.full((4,), value)}) for index, value in enumerate([1.0, torch.nan])]
    with pytest.raises(MergeError, match="Tensor w of m1"):
        merge_folders(folders, folders[0], tmp_path / "out", method="linear", weights=[1, 0])


def test_integers_that_differ_are_named(tmp_path: Path, write_model: WriteModel) -> None:
    many = torch.arange(STRIP + 5)
    other = many.clone()
    other[-1] = 0
    folders = [write_model(name, {"i": tensor}) for name, tensor in (("a", many), ("b", other))]
    with pytest.raises(MergeError, match="Integer tensor i differs between a and b"):
        merge_folders(folders, folders[0], tmp_path / "out", method="linear")
    equal = [folders[0], write_model("c", {"i": many})]
    same, _ = merge_folders(equal, folders[0], tmp_path / "same", method="linear")
    assert torch.equal(same["i"], many)


def test_progress_reaches_the_end_and_files_are_cut(tmp_path: Path, write_model: WriteModel) -> None:
    tensors = {name: noisy(ord(name), (100, 100)) for name in "abc"}
    folder = write_model("m", tensors)
    events: list[Event] = []
    found, _ = merge_folders(
        [folder], folder, tmp_path / "out", report=events.append, method="linear", shard_gb=0.00005
    )
    assert [event.done for event in events] == [40_000, 80_000, 120_000] and events[-1].total == 120_000
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
