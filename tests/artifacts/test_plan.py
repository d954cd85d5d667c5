from __future__ import annotations

import numpy as np
import pytest

from boom_ray.artifacts.plan import BAG, Plan, Stage, open_plan
from boom_ray.errors import StoreError
from boom_ray.store import Store


def plain() -> Plan:
    return Plan(("a", "b"), np.array([1, 0, 1]), np.array([0, 0, 1]), np.array([0, 2, 4, 6]), np.arange(6))


def mixed() -> Plan:
    """Two steps of three rows: one of a and b, one of b."""
    parts = (np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 1, 3, 6]))
    return Plan(("a", "b"), *parts, np.array([7, 8, 9, 1, 2, 3]), np.array([0, 2, 3]))


def test_steps_of_one_dataset():
    plan = plain()
    assert len(plan) == 3
    assert [(one.dataset, one.epoch, one.rows.tolist()) for one in map(plan.step, range(3))] == [
        ("b", 0, [0, 1]),
        ("a", 0, [2, 3]),
        ("b", 1, [4, 5]),
    ]
    assert [len(plan.parts(index)) for index in range(3)] == [1, 1, 1]
    assert list(plan.arrays()) == ["dataset", "epoch", "offsets", "rows"]


def test_steps_of_several_datasets():
    plan = mixed()
    assert len(plan) == 2
    assert [(one.dataset, one.epoch, one.rows.tolist()) for one in plan.parts(0)] == [("a", 0, [7]), ("b", 0, [8, 9])]
    assert [(one.dataset, one.epoch, one.rows.tolist()) for one in plan.parts(1)] == [("b", 1, [1, 2, 3])]
    assert plan.step(1).dataset == "b"
    with pytest.raises(ValueError, match="too many values"):
        plan.step(0)


@pytest.mark.parametrize("make", [plain, mixed])
def test_a_saved_plan_is_the_same(tmp_path, make):
    plan = make()
    plan.save(tmp_path)
    loaded = Plan.load(tmp_path, plan.datasets)
    assert plan.arrays().keys() == loaded.arrays().keys()
    for name, array in plan.arrays().items():
        assert np.array_equal(array, loaded.arrays()[name])
    assert (tmp_path / "plan-starts.npy").exists() == (make is mixed)


def test_a_stored_bag_gives_its_plan_with_stages(tmp_path):
    store = Store(tmp_path)
    stages = [{"name": "first", "steps": 1, "learning_rate": 1e-3}, {"name": "all", "steps": 2, "learning_rate": None}]

    def put(figures: dict[str, object]) -> str:
        def build(draft):
            plain().save(draft.path)
            draft.figures |= {"datasets": ["a", "b"], **figures}
            draft.fingerprint = "f"

        return store.materialize(BAG, figures, {}, build).key

    assert open_plan(store, put({"stages": stages})).stages == (Stage("first", 1, 1e-3), Stage("all", 2))
    assert open_plan(store, put({})).stages == ()
    with pytest.raises(StoreError, match="Bag nowhere is missing"):
        open_plan(store, "nowhere")
