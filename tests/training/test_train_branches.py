"""Branches on a real Ray cluster."""

from __future__ import annotations

import pytest

from boom_ray.artifacts.plan import open_plan
from boom_ray.events import Event
from boom_ray.store import Store
from boom_ray.training.job import TRUNK
from boom_ray.training.members import train_branches, train_members
from tests.tiny_model import make_tiny_model
from tests.training.test_members import KillOnce, make_jobs


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_branches_are_trained_from_one_trunk_that_survives_a_killed_worker(ray_cluster, tmp_path):
    base = make_tiny_model(tmp_path / "base")
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    schedule = {"decay": "wsd", "decay_ratio": 0.2, "warmup_updates": 10}
    (job,) = make_jobs(store, base, {"any": 1e-3}, 1, 2, branches=True, **schedule)
    steps = len(open_plan(store, job.bag_key))
    report = KillOnce(store)
    members = train_branches(store, job, {"half": 0.5, "whole": 1.0}, report=report)
    assert report.killed
    assert report.events[0].note == f"2 branches of one run: {steps * 11 // 10} steps instead of {steps * 3 // 2}"
    resumed = [event.unit for event in report.events if event.note.startswith("continues at step")]
    assert any(unit.startswith("trunk-") for unit in resumed)
    assert {"half", "whole"} < set(resumed)
    assert [path.name for path in (tmp_path / "store" / "training").iterdir() if path.is_dir()] == []

    (again,) = make_jobs(other, base, {"whole": 1e-3}, 1, 2, **schedule)
    alone = train_members(other, [again])["whole"]
    assert members["whole"].key == alone.key
    assert members["whole"].fingerprint == alone.fingerprint
    assert members["whole"].figures["curve"] == alone.figures["curve"]
    assert members["half"].figures["steps"] == steps // 2

    events: list[Event] = []
    more = train_branches(store, job, {"whole": 1.0, "most": 0.75}, report=events.append)
    assert more["whole"] == members["whole"]
    assert more["most"].figures["resumed_at"] == steps * 6 // 10
    trained = {event.unit for event in events if "loss" in event.figures}
    assert "most" in trained
    assert "whole" not in trained
    assert len(store.finished(TRUNK)) == 3
