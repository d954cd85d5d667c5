"""The order in which trunks and what needs them are trained, with members that nobody trains."""

from __future__ import annotations

from typing import Any

from boom_ray.store import Artifact, Store
from boom_ray.training.branches import branch_jobs
from boom_ray.training.job import VERSION, MemberJob
from boom_ray.training.order import Order, with_trunks
from tests.training.test_branches import make_job


def branches() -> list[MemberJob]:
    """Three members and, in their chain, three trunks of 16, 40 and 80 steps."""
    return branch_jobs(make_job(), {"fifth": 0.2, "half": 0.5, "whole": 1.0}, 100)


def trunk_steps(jobs: list[MemberJob]) -> list[Any]:
    return [getattr(job, "steps", job.name) for job in jobs]


def put(store: Store, job: MemberJob | None) -> Artifact:
    assert job is not None
    return store.materialize(job.kind, job.spec(), job.inputs(), lambda draft: None, VERSION)


def test_missing_trunks_come_first_and_only_those_that_are_needed(tmp_path):
    store, jobs = Store(tmp_path), branches()
    assert trunk_steps(with_trunks(store, jobs[::-1])) == [16, 40, 80, "whole", "half", "fifth"]
    assert trunk_steps(with_trunks(store, [jobs[1]])) == [16, 40, "half"]
    put(store, jobs[1].trunk)
    assert trunk_steps(with_trunks(store, jobs)) == [16, 80, "fifth", "half", "whole"]
    assert trunk_steps(with_trunks(store, jobs[1:])) == [80, "half", "whole"]
    assert with_trunks(store, [make_job()]) == [make_job()]


def test_a_member_waits_for_its_trunk_alone(tmp_path):
    store, jobs = Store(tmp_path), branches()
    order, results = Order(with_trunks(store, jobs)), {}
    handed = []
    while order.waiting:
        start, lost = order.ready(results)
        assert not lost
        assert start
        handed.append(trunk_steps(start))
        results |= {job.name: put(store, job) for job in start}
    assert handed == [[16], [40, "fifth"], [80, "half"], ["whole"]]
    plain = Order([make_job()])
    assert plain.ready({}) == ([make_job()], {})
    assert plain.ready({}) == ([], {})


def test_what_needs_a_trunk_that_failed_is_lost(tmp_path):
    store, jobs = Store(tmp_path), branches()
    first, second, third = (job.trunk.name for job in jobs)
    order = Order(with_trunks(store, jobs))
    order.ready({})
    results = {first: put(store, jobs[0].trunk)}
    order.ready(results)
    start, lost = order.ready({**results, second: "no room"})
    assert start == []
    assert lost == {
        third: f"{second}, which it begins with, could not be trained",
        "half": f"{second}, which it begins with, could not be trained",
        "whole": f"{third}, which it begins with, could not be trained",
    }
    assert order.waiting == []
