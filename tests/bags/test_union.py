"""Shares of corpora that came one after the other, and their union as one plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.artifacts.plan import open_plan
from boom_ray.bags.sampling import BagRule, bag_size
from boom_ray.bags.stage import load_rows
from boom_ray.bags.union import Holding, ShareJob, UnionJob, make_shares, make_unions, share_rows
from boom_ray.config import MixtureConfig
from boom_ray.errors import DataError
from boom_ray.store import Artifact, Store
from tests.token_corpus import write_corpus

ALL = BagRule(1.0, 0)
CORE = BagRule(0.4, 0, draw=-1)
NOWHERE = Holding("none", {})
Ids = st.sets(st.integers(0, 2**64 - 1), max_size=60)


def ids(values: Any) -> np.ndarray:
    return np.array(sorted(values), dtype=np.uint64)


@given(Ids, Ids, st.floats(0.05, 1.0))
def test_a_share_is_of_what_is_not_known(own: set[int], known: set[int], ratio: float) -> None:
    rule = BagRule(ratio, 3)
    rows, repeated = share_rows({"d": ids(own)}, ids(known), ShareJob("x", rule, NOWHERE))
    chosen = ids(own)[rows["d"]].tolist()
    assert set(chosen) <= own - known and len(set(chosen)) == len(chosen)
    assert len(chosen) == bag_size(len(own - known), ratio)
    assert repeated == {"d": len(own & known)}


@given(Ids, Ids)
def test_more_old_data_takes_nothing_else_away(own: set[int], known: set[int]) -> None:
    """All of what is new is its complement: the old, the new and the repeated are everything once."""
    rows, repeated = share_rows({"d": ids(own)}, ids(known), ShareJob("x", ALL, NOWHERE))
    assert len(rows["d"]) + repeated["d"] == len(own)
    assert set(ids(own)[rows["d"]].tolist()) == own - known


def test_caps_are_for_the_corpus_that_they_are_about() -> None:
    many = {"a": ids(range(100)), "b": ids(range(200, 230))}
    mixture = MixtureConfig(caps={"a": 20}).identity()
    rows, _ = share_rows(many, ids([]), ShareJob("x", ALL, NOWHERE, mixture=mixture))
    assert {name: len(own) for name, own in rows.items()} == {"a": 20, "b": 30}
    rows, _ = share_rows(many, ids([]), ShareJob("x", ALL, NOWHERE))
    assert {name: len(own) for name, own in rows.items()} == {"a": 100, "b": 30}


def test_names_are_in_no_key_and_all_else_is() -> None:
    held, older = Holding("h", {}), Holding("o", {})
    key = ShareJob("x", ALL, held).key
    assert ShareJob("y", ALL, Holding("h", {"moved": ["p"]})).key == key
    others = [ShareJob("x", CORE, held), ShareJob("x", ALL, older), ShareJob("x", ALL, held, (older,))]
    assert len({key, *(job.key for job in others)}) == 4
    one, two = (Artifact("share", key * 32, "", {}, {}, {}, key, {}) for key in "12")
    union = UnionJob("x", {"a": one, "b": two}, held, 1, 8, 1)
    assert UnionJob("y", {"c": two, "d": one}, held, 1, 8, 1).key == union.key
    assert UnionJob("x", {"a": one}, held, 1, 8, 1).key != union.key
    assert UnionJob("x", {"a": one, "b": two}, held, 1, 4, 1).key != union.key


@pytest.mark.ray
def test_a_union_is_one_plan_over_old_core_and_all_that_is_new(ray_cluster, tmp_path):
    store = Store(tmp_path)
    old = Holding("old", write_corpus(store, {"a": 50, "b": 37}))
    again = write_corpus(store, {"a": 20}, negatives=1)["a"]  # the ids of the first 20 of a, under another name
    new = Holding("new", write_corpus(store, {"c": 24}) | {"d": again})
    both = Holding("both", {**old.parts, **new.parts})
    jobs = [ShareJob("core", CORE, old), ShareJob("new", ALL, new, (old,)), ShareJob("of new", CORE, new, (old,))]
    events: list[Any] = []
    core, fresh, next_core = make_shares(store, jobs, events.append)
    assert core.figures["examples"] == {"a": 20, "b": 15} and core.figures["repeated"] == {"a": 0, "b": 0}
    assert fresh.figures["examples"] == {"c": 24, "d": 0} and fresh.figures["repeated"] == {"c": 0, "d": 20}
    assert next_core.figures["examples"] == {"c": 10, "d": 0}
    assert set(load_rows(next_core)["c"].tolist()) < set(load_rows(fresh)["c"].tolist())
    (bag,) = make_unions(store, [UnionJob("bag", {"old": core, "new": fresh}, both, 7, 5, 2)], events.append)
    assert bag.figures["examples"] == {"a": 20, "b": 15, "c": 24, "d": 0}
    assert bag.figures["left_over"] == {"a": 0, "b": 0, "c": 4, "d": 0}
    plan = open_plan(store, bag.key)
    assert len(plan) == 2 * (4 + 3 + 4) and plan.datasets == ("a", "b", "c", "d")
    assert len({plan.step(number).dataset for number in range(8)}) > 1, "batches of old and new are shuffled"
    for name in ("a", "b"):
        seen = [plan.step(n).rows for n in range(len(plan)) if plan.step(n).dataset == name and plan.step(n).epoch == 0]
        assert sorted(np.concatenate(seen).tolist()) == load_rows(core)[name].tolist()
    assert [one.key for one in make_shares(store, jobs, events.append)] == [core.key, fresh.key, next_core.key]
    assert [event.note for event in events] == ["", "", "", "", "stored", "stored", "stored"]


@pytest.mark.ray
def test_a_union_without_a_full_batch_says_what_to_do(ray_cluster, tmp_path):
    store = Store(tmp_path)
    held = Holding("x", write_corpus(store, {"a": 5}))
    (share,) = make_shares(store, [ShareJob("all", ALL, held)])
    with pytest.raises(DataError, match=r"The bag of one gives no step.*batch_size=8.*a 5.*Lower the batch size"):
        make_unions(store, [UnionJob("one", {"x": share}, held, 0, 8, 1)])
