"""One pass keeps what merges of both kinds need, bit by bit as they would compute it themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from boom_ray.config import MergeConfig
from boom_ray.merging.geometry.portrait import gather_portrait, portrait_job
from boom_ray.merging.geometry.statistics import find_geometry
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import merge_here
from boom_ray.merging.survey import gather_geometry
from boom_ray.merging.tensors.vectors import STRIP
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Store
from tests.merging.adapted import make_adapter, make_base
from tests.plain_model import WriteModel

SHAPES = {"embed.weight": (2, STRIP + 7), "layers.0.w": (30, 40), "layers.0.b": (40,), "empty": (0, 3)}
BF16, F32 = torch.bfloat16, torch.float32


def models(write_model: WriteModel, ref, base: torch.dtype, members: torch.dtype) -> MergeInputs:
    """A base and three members around it, rounded to their types."""

    def tensors(seed: int) -> dict[str, torch.Tensor]:
        generator, own = torch.Generator().manual_seed(9), torch.Generator().manual_seed(seed)
        return {
            key: torch.randn(shape, generator=generator) + 0.1 * seed * torch.randn(shape, generator=own)
            for key, shape in SHAPES.items()
        }

    def write(seed: int, dtype: torch.dtype) -> MemberRef:
        values = {key: value.to(dtype) for key, value in tensors(seed).items()}
        return ref(write_model(f"m{seed}", {**values, "i": torch.arange(3)}))

    return MergeInputs([write(seed, members) for seed in (1, 2, 3)], write(0, base))


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(left[key].tobytes() == right[key].tobytes() for key in left)


@pytest.mark.parametrize("merge_dtype", ["auto", "float32"])
@pytest.mark.parametrize(("base", "members"), [(F32, F32), (BF16, BF16), (F32, BF16), (BF16, F32)])
def test_it_keeps_exactly_what_merges_of_either_kind_compute(
    tmp_path, write_model, ref, base, members, merge_dtype
) -> None:
    inputs = models(write_model, ref, base, members)
    looked, direct = Store(tmp_path / "looked"), Store(tmp_path / "direct")
    config = MergeConfig(merge_dtype=merge_dtype, cpus=2)
    gather_portrait(portrait_job(looked, inputs, config))
    for kind in ("none", "base"):
        recipe = config.model_copy(update={"base": kind})
        job = MergeJob(direct, inputs, recipe)
        with job.opened() as opened:
            wanted = gather_geometry(job, opened)
        found = find_geometry(MergeJob(looked, inputs, recipe))
        assert found.about_base == wanted.about_base == (kind == "base")
        assert len(found.grams) == len(SHAPES) and same(dict(found.grams), dict(wanted.grams)), kind


def test_a_merge_after_it_reads_once_and_gives_the_same_bytes(tmp_path, write_model, ref) -> None:
    inputs = models(write_model, ref, F32, F32)
    config = MergeConfig(method="multislerp", chunk_mb=1)  # the embedding is larger, so a look costs a read of it
    looked, direct = Store(tmp_path / "looked"), Store(tmp_path / "direct")
    gather_portrait(portrait_job(looked, inputs, config))
    found, wanted = (merge_here(MergeJob(store, inputs, config)) for store in (looked, direct))
    assert found.fingerprint == wanted.fingerprint and found.key == wanted.key
    embedding = 3 * 4 * 2 * (STRIP + 7)
    assert wanted.figures["bytes_read"] - found.figures["bytes_read"] == embedding


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_adapters_too(tmp_path: Path, dtype: torch.dtype) -> None:
    base = make_base(tmp_path / "base", dtype=dtype)
    folders = [make_adapter(base, tmp_path / f"a{seed}", seed=seed, target_modules="all-linear") for seed in (1, 2)]
    below = MemberRef("base", str(base), weights_fingerprint(base), 1)
    inputs = MergeInputs([MemberRef(one.name, str(one), one.name, 1) for one in folders], below)
    looked, direct = (MergeJob(Store(tmp_path / name), inputs, MergeConfig()) for name in ("looked", "direct"))
    gather_portrait(portrait_job(looked.store, inputs, looked.config))
    with direct.opened() as opened:
        wanted = gather_geometry(direct, opened)
    assert same(dict(find_geometry(looked).grams), dict(wanted.grams))


def test_without_a_base_there_is_one_kind(tmp_path, write_model, ref) -> None:
    inputs = MergeInputs(models(write_model, ref, F32, F32).members)
    store = Store(tmp_path / "store")
    seen = gather_portrait(portrait_job(store, inputs, MergeConfig()))
    assert same(dict(find_geometry(MergeJob(store, inputs, MergeConfig())).grams), dict(seen.grams))
    assert len(store.finished("geometry")) == 1 and not seen.signs
