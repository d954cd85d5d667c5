"""Members are told apart by their names while they train."""

from __future__ import annotations

from dataclasses import replace

import pytest

from boom_ray.store import Store
from boom_ray.training.job import VERSION
from boom_ray.training.members import train_members
from tests.training.test_branches import make_job


def test_a_namesake_in_the_store_hides_nobody(tmp_path):
    store, stored = Store(tmp_path), replace(make_job(), name="bag-80")
    fresh = replace(stored, seed=5)
    artifact = store.materialize(
        stored.kind, stored.spec(), stored.inputs(), lambda draft: draft.figures.update(steps=3), VERSION
    )
    with pytest.raises(ValueError, match=f"two members are called bag-80: {fresh.key} and {stored.key}"):
        train_members(store, [fresh, stored])
    assert train_members(store, [stored, stored]) == {"bag-80": artifact}
