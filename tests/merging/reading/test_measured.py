"""Statistics that were gathered from other models, or not at all, are named and never used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.store import Store
from tests.plain_model import WriteModel

Ref = Callable[..., MemberRef]
Tensors = dict[str, torch.Tensor]
W, V = {"w": torch.ones(2, 3)}, {"v": torch.ones(2)}
SQUARE = {"w": torch.eye(3)}


def measured(folder: Path, tensors: Tensors) -> MemberRef:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return MemberRef(folder.name, str(folder), folder.name, 1)


@pytest.fixture
def merged(tmp_path: Path, write_model: WriteModel, ref: Ref) -> Callable[..., Tensors]:
    """Merges two members of a (2, 3) and a (2,) tensor with given statistics."""
    members = [
        ref(write_model(name, {"w": torch.full((2, 3), value), "v": torch.ones(2)}))
        for name, value in (("one", 1.0), ("two", 3.0))
    ]

    def merge(method: str, **given: list[Tensors]) -> Tensors:
        found: dict[str, Any] = {
            kind: [measured(tmp_path / f"{kind}{place}", one) for place, one in enumerate(each)]
            for kind, each in given.items()
        }
        job = MergeJob(Store(tmp_path / "store"), MergeInputs(members, **found), MergeConfig(method=method))
        return load_file(merge_here(job).local() / MODEL / "model.safetensors")

    return merge


def test_statistics_that_fit_weigh_the_members(merged: Callable[..., Tensors]) -> None:
    found = merged("fisher", fisher=[{"w": torch.full((2, 3), 3.0)}, {"w": torch.full((2, 3), 1.0)}])
    assert torch.equal(found["w"], torch.full((2, 3), 1.5)) and torch.equal(found["v"], torch.ones(2))


@pytest.mark.parametrize(
    ("method", "given", "text"),
    [
        ("fisher", {}, "needs Fisher information of each of the 2 members, and has it of 0. jobs/merge.py"),
        ("regmean", {}, "needs products of activations of each of the 2 members, and has it of 0"),
        ("fisher", {"fisher": [W]}, "has it of 1"),
        ("fisher", {"fisher": [W, {**W, **V}]}, "Tensor v is in the Fisher information of only one of"),
        ("fisher", {"fisher": [{"x": torch.ones(2)}] * 2}, r"tensor x of shape \[2\], and the member has none"),
        ("fisher", {"fisher": [{"w": torch.ones(3, 2)}] * 2}, r"shape \[3, 2\], and the member has \[2, 3\]"),
        ("fisher", {"fisher": [W, {"w": torch.full((2, 3), torch.nan)}]}, "fisher1 has a negative value, NaN or inf"),
        ("fisher", {"fisher": [W, {"w": -torch.ones(2, 3)}]}, "fisher1 has a negative value, .* in tensor w"),
        ("regmean", {"activations": [SQUARE, {"w": torch.eye(2)}]}, r"shape \[2, 2\], which does not fit"),
        ("regmean", {"activations": [SQUARE, {"x": torch.eye(3)}]}, "does not fit the member's tensors"),
    ],
)
def test_statistics_that_do_not_fit_are_named(
    merged: Callable[..., Tensors], tmp_path: Path, method: str, given: dict[str, list[Tensors]], text: str
) -> None:
    with pytest.raises(MergeError, match=text):
        merged(method, **given)
    assert not list((tmp_path / "store").glob("merge/*"))


def test_a_layer_that_one_sample_did_not_reach_is_averaged(merged: Callable[..., Tensors]) -> None:
    found = merged("regmean", activations=[SQUARE, {"v": torch.eye(2)}])
    assert torch.equal(found["w"], torch.full((2, 3), 2.0))
