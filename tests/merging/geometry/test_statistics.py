"""Inner products are computed once per member set, kept, and used by every later merge of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from boom_ray.config import MergeConfig
from boom_ray.merging.geometry.statistics import find_geometry, find_magnitudes, load
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import merge_here
from boom_ray.merging.survey import gather_geometry
from boom_ray.store import Store
from tests.plain_model import WriteModel


@pytest.fixture
def refs(write_model: WriteModel, ref: Callable[..., MemberRef]) -> list[MemberRef]:
    """Base and three members."""
    common = torch.randn(20, 30, generator=torch.Generator().manual_seed(9))

    def noisy(seed: int) -> torch.Tensor:
        return common + 0.1 * torch.randn(20, 30, generator=torch.Generator().manual_seed(seed))

    return [ref(write_model(f"m{seed}", {"w": noisy(seed), "i": torch.arange(3)})) for seed in range(4)]


def job(store: Store, refs: list[MemberRef], **config: object) -> MergeJob:
    return MergeJob(store, MergeInputs(refs[1:], refs[0]), MergeConfig.model_validate(config))


def test_a_merge_keeps_what_it_computed_and_the_next_one_reads_each_byte_once(
    tmp_path: Path, refs: list[MemberRef]
) -> None:
    store = Store(tmp_path / "store")
    first = merge_here(job(store, refs, method="multislerp", chunk_mb=1))
    [kept] = (tmp_path / "store" / "geometry").iterdir()
    assert find_geometry(job(store, refs, method="karcher")).grams.keys() == {"w"}
    assert not find_geometry(job(store, refs, method="karcher", base="base")).grams
    assert not find_geometry(job(store, refs, method="karcher", merge_dtype="float32")).grams
    assert not find_geometry(job(store, [refs[0], *refs[:0:-1]], method="karcher")).grams
    second = merge_here(job(store, refs, method="multislerp", weights=(1, 2, 3)))
    assert first.figures["bytes_read"] == second.figures["bytes_read"] == 3 * 4 * 600
    assert [path.name for path in (tmp_path / "store" / "geometry").iterdir()] == [kept.name]
    fresh = merge_here(job(Store(tmp_path / "other"), refs, method="multislerp", weights=(1, 2, 3)))
    assert fresh.fingerprint == second.fingerprint


def test_grams_about_the_base_are_those_of_numpy(tmp_path: Path, refs: list[MemberRef]) -> None:
    store = Store(tmp_path / "store")
    task = job(store, refs, method="multislerp", base="base")
    with task.opened() as opened:
        known = gather_geometry(task, opened)
    tensors = [load_file(Path(one.path) / "model.safetensors")["w"].double().numpy().ravel() for one in refs]
    basis = np.stack([tensors[0], *(one - tensors[0] for one in tensors[1:])])
    np.testing.assert_allclose(known.grams["w"], basis @ basis.T, rtol=1e-13)
    found = find_geometry(task)
    assert found.about_base and np.array_equal(found.grams["w"], known.grams["w"])
    merged = merge_here(job(store, refs, method="multislerp"))
    direct = merge_here(job(Store(tmp_path / "other"), refs, method="multislerp"))
    assert merged.fingerprint == direct.fingerprint, "what is in the store decides no bytes"


def test_what_is_kept_survives_the_disk(tmp_path: Path, refs: list[MemberRef]) -> None:
    store = Store(tmp_path / "store")
    merge_here(job(store, refs, method="karcher", base="base"))
    known = find_geometry(job(store, refs, method="karcher", base="base"))
    [folder] = (tmp_path / "store" / "geometry").iterdir()
    again = store.get("geometry", folder.name)
    assert again is not None and np.array_equal(load(again)["w"]["gram"], known.grams["w"])
    assert known.grams["w"].shape == (4, 4) and known.grams["w"].dtype == np.float64


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_histograms_are_kept_and_serve_every_density(tmp_path: Path, refs: list[MemberRef], scope: str) -> None:
    store = Store(tmp_path / "store")
    merge_here(job(store, refs, method="ties", parameters={"density": 0.3, "scope": scope}))
    assert find_magnitudes(job(store, refs, method="ties")).keys() == {"w"}
    assert not find_magnitudes(job(store, [refs[1], *refs[1:]], method="ties"))
    config = {"method": "ties", "parameters": {"density": 0.6, "scope": scope}}
    fresh = merge_here(job(Store(tmp_path / "other"), refs, **config))
    again = merge_here(job(store, refs, **config))
    assert again.fingerprint == fresh.fingerprint
    assert len(list((tmp_path / "store" / "magnitudes").iterdir())) == 1
