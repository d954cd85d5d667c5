"""What members cost by the configuration alone, in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest

from boom_ray.config import RunConfig, load_config
from boom_ray.flows.outlook import baseline_part, full_run, member_parts, total
from tests.tiny_job import write_job


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_job(tmp_path_factory.mktemp("job"))


def runs(path: Path, *overrides: str) -> list[float]:
    return [part.runs for part in member_parts(load_config(RunConfig, path, list(overrides)))]


def test_a_member_costs_its_share_of_every_pass(path):
    assert runs(path) == [0.5, 1.0]
    assert runs(path, "training.epochs=3") == [1.5, 3.0]
    halves = "bags.members=[{name: a, ratio: 0.3}, {name: rest, complement_of: a}]"
    assert runs(path, halves) == pytest.approx([0.3, 0.7])
    assert runs(path, "bags.members=[{name: a, ratio: 0.5, datasets: [pairs]}]") == [0.25]
    assert runs(path, "bags.ratios=[1.0]", "bags.schedule=two-stage") == [1.5]  # one of two datasets first, then both


def test_parts_are_the_same_only_where_the_members_are(path):
    def keys(*overrides: str) -> set[str]:
        return {part.key for part in member_parts(load_config(RunConfig, path, list(overrides)))}

    assert keys() == keys("merge.method=karcher")
    assert len(keys() & keys("bags.ratios=[1.0, 0.8]")) == 1
    assert not keys() & keys("bags.schedule=round-robin")
    assert not keys() & keys("training.learning_rate=0.5")


def test_the_baseline_is_a_member_of_its_own_where_no_bag_is_it(path):
    def baseline(*overrides: str):
        return baseline_part(load_config(RunConfig, path, list(overrides)))

    everything = member_parts(load_config(RunConfig, path))[1]  # of 50 % and 100 %
    assert baseline() is None
    assert baseline("bags.ratios=[0.5]") == everything
    assert baseline("bags.ratios=[0.5]", "baseline=false") is None
    assert baseline("bags.schedule=round-robin") == everything  # its 100 % are in another order
    found = baseline("bags.ratios=[0.5]", "training.epochs=3")
    assert found is not None
    assert found.runs == 3.0
    assert found.key != everything.key


def test_totals_and_full_runs(path):
    config = load_config(RunConfig, path)
    assert total(member_parts(config)) == 1.5
    assert full_run(config, {"pairs": 31, "topics": 16}) == 40  # whole batches of 8
    capped = load_config(RunConfig, path, ["bags.mixture.caps={pairs: 9}"])
    assert full_run(capped, {"pairs": 31, "topics": 16}) == 24
