"""Passes over the whole model before a merge: what is reported of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boom_ray.config import MergeConfig
from boom_ray.events import Event
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.survey import gather_geometry, survey
from boom_ray.store import Store
from tests.plain_model import WriteModel

SIZE = 4 * 600


@pytest.fixture
def inputs(write_model: WriteModel, ref: Callable[..., MemberRef]) -> MergeInputs:
    """A base and two members with three tensors, of which one is an integer."""
    tensors = [
        {key: torch.randn(20, 30, generator=torch.Generator().manual_seed(7 * seed + place))
         for place, key in enumerate("abc")} | {"i": torch.arange(5)}
        for seed in range(3)
    ]  # fmt: skip
    base, *members = [ref(write_model(f"m{seed}", one)) for seed, one in enumerate(tensors)]
    return MergeInputs(members, base)


def told(job: MergeJob, call: Callable[..., object]) -> list[Event]:
    events: list[Event] = []
    with job.opened() as opened:
        call(job, opened, events.append)
    return events


@pytest.mark.parametrize("changed", [True, False])
def test_two_passes_reach_the_end_once(tmp_path: Path, inputs: MergeInputs, changed: bool) -> None:
    assert inputs.base is not None
    one = inputs.members[0] if changed else replace(inputs.base, name="same")
    config = MergeConfig(method="ties", parameters={"scope": "model", "density": 0.3})
    events = told(MergeJob(Store(tmp_path / "store"), MergeInputs([one], inputs.base), config), survey)
    done = [event.done for event in events]
    assert {(event.total, event.measure) for event in events} == {(6 * SIZE, "bytes")}
    assert done == sorted(set(done)) and done[-1] == 6 * SIZE
    assert len(done) == (6 if changed else 4), "one that is the base has no threshold to search for"


def test_one_pass_is_told_in_bytes(tmp_path: Path, inputs: MergeInputs) -> None:
    job = MergeJob(Store(tmp_path / "store"), inputs, MergeConfig(base="base"))
    events = told(job, gather_geometry)
    assert [(event.done, event.total, event.measure) for event in events] == [
        (number * SIZE, 3 * SIZE, "bytes") for number in (1, 2, 3)
    ]
