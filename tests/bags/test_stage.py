from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan, Stage, open_plan
from boom_ray.bags.sampling import BagRule
from boom_ray.bags.schedules import Schedule, StageRule
from boom_ray.bags.stage import (
    BagJob,
    bag_rows,
    compare,
    core_rule,
    fingerprint,
    left_over,
    load_rows,
    make_bags,
    rule_of,
)
from boom_ray.config import BagConfig, BagsConfig, MixtureConfig
from boom_ray.errors import DataError
from boom_ray.store import Store
from tests.bags.plans import ids_of, sizes, steps
from tests.token_corpus import write_corpus

SIZES = {"a": 64, "b": 37}


def job(
    name: str, rule: BagRule, parts: dict[str, list[str]], batch: int = 8, schedule: Schedule | None = None
) -> BagJob:
    mixture = MixtureConfig().identity()
    return BagJob(name, rule, rule.seed, batch, 1, mixture, 0, "corpus-fingerprint", parts, schedule or Schedule())


@pytest.mark.ray
def test_bags_are_stored_once_and_read_back(ray_cluster, tmp_path):
    store = Store(tmp_path)
    parts = write_corpus(store, SIZES)
    half = BagRule(0.5, 3)
    jobs = [job("half", half, parts), job("rest", BagRule(0.5, 3, complement=True), parts)]
    events = []
    bags = make_bags(store, jobs, events.append)
    assert bags["half"].figures["examples"] == {"a": 32, "b": 19}
    assert bags["half"].figures["left_over"] == {"a": 0, "b": 3}
    assert len(open_plan(store, bags["half"].key)) == bags["half"].figures["steps"] == 6
    rows = {name: load_rows(bag) for name, bag in bags.items()}
    for dataset, size in SIZES.items():
        both = np.concatenate([rows["half"][dataset], rows["rest"][dataset]])
        assert sorted(both.tolist()) == list(range(size))
    shared = compare(bags, SIZES)
    assert shared.coverage == 1
    np.testing.assert_allclose(shared.shared, np.eye(2))
    again = make_bags(store, jobs, events.append)
    assert again["half"].fingerprint == bags["half"].fingerprint
    assert [event.note for event in events] == ["", "", "stored", "stored"]


@pytest.mark.ray
def test_a_bag_without_a_full_batch_says_what_to_do(ray_cluster, tmp_path):
    store = Store(tmp_path)
    parts = write_corpus(store, {"a": 5})
    with pytest.raises(DataError, match=r"Bag small gives no step.*batch_size=8.*a 3"):
        make_bags(store, [job("small", BagRule(0.5, 0), parts)])


def test_a_complement_takes_over_the_rule_it_completes():
    bags = BagsConfig(members=(BagConfig(name="x", ratio=0.3, seed=9, draw=2), BagConfig(name="y", complement_of="x")))
    x, y = (rule_of(bag, bags, seed=1) for bag in bags.resolved())
    assert x == BagRule(0.3, 9, 2)
    assert y == BagRule(0.3, 9, 2, complement=True)
    assert core_rule(bags, 1).ratio == 0.4


def test_the_name_of_a_bag_is_not_in_its_key():
    assert job("one", BagRule(0.5, 3), {}).key == job("two", BagRule(0.5, 3), {}).key
    assert job("one", BagRule(0.5, 3), {}).key != job("one", BagRule(0.5, 4), {}).key


def test_keys_of_plain_bags_are_those_of_earlier_versions():
    plain = job("one", BagRule(0.5, 3), {})
    assert plain.key == "d67dba81884af13bcd07cba2dfcf1838"
    assert plain.spec()["schedule"] == "batch-level-shuffling"
    assert list(plain.spec()["rule"]) == ["ratio", "seed", "draw", "replacement", "nested", "complement"]


def test_schedules_and_datasets_make_other_bags():
    rule = BagRule(0.5, 3)
    stages = Schedule("two-stage", stages=(StageRule("x", ("a",), 1, 1e-3),))
    jobs = [
        job("one", rule, {}),
        job("one", replace(rule, datasets=("a",)), {}),
        job("one", replace(rule, datasets=("a", "b")), {}),
        job("one", rule, {}, schedule=Schedule("example-mixing")),
        job("one", rule, {}, schedule=stages),
        job("one", rule, {}, schedule=Schedule("two-stage", stages=(replace(stages.stages[0], learning_rate=2e-3),))),
    ]
    assert len({one.key for one in jobs}) == len(jobs)
    assert job("one", replace(rule, datasets=("b", "a")), {}).key == jobs[2].key


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(1, 8), st.sampled_from([BagRule(0.6, 1), BagRule(0.4, 2, complement=True)]))
def test_a_bag_of_some_datasets_is_the_whole_bag_without_the_others(sizes, batch, rule):
    ids, held = ids_of(sizes), ("a", "c")
    whole, some = (job("x", one, {}, batch) for one in (rule, replace(rule, datasets=held)))
    rows, part = bag_rows(ids, whole), bag_rows(ids, some)
    assert set(part) == set(sizes) & set(held)
    assert all(part[name].tolist() == rows[name].tolist() for name in part)
    plans = [Schedule().plan(own, ids, batch, 2, 5) for own in (rows, part)]
    assert steps(plans[1]) == [step for step in steps(plans[0]) if step[0] in held]


def test_caps_and_quotas_of_a_bag_of_some_datasets_are_those_of_the_run():
    ids = ids_of({"a": 40, "b": 40})
    some = job("x", BagRule(1.0, 0, datasets=("a",)), {})
    capped = replace(some, mixture={"temperature": 1.0, "caps": {"b": 20}, "max_examples": 30})
    assert [len(rows) for rows in bag_rows(ids, capped).values()] == [20]


def test_a_complement_and_the_bag_that_it_completes_have_the_same_datasets():
    bags = BagsConfig(
        members=(BagConfig(name="x", ratio=0.3, datasets=("b", "a")), BagConfig(name="y", complement_of="x"))
    )
    x, y = (rule_of(bag, bags, seed=1) for bag in bags.resolved())
    assert x.datasets == y.datasets == ("a", "b")
    ids = ids_of({"a": 20, "b": 10, "c": 10})
    one, other = (bag_rows(ids, job("x", rule, {})) for rule in (x, y))
    assert {name: sorted([*one[name], *other[name]]) for name in one} == {"a": list(range(20)), "b": list(range(10))}


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(1, 8), st.integers(1, 3))
def test_what_batch_level_shuffling_leaves_over_is_the_incomplete_batch(sizes, batch, epochs):
    plan = Schedule().plan({name: np.arange(size) for name, size in sizes.items()}, ids_of(sizes), batch, epochs, 0)
    assert left_over(plan, sizes) == {name: size % batch for name, size in sizes.items()}


def test_what_other_schedules_leave_over():
    sizes = {"a": 40, "b": 21, "c": 3}
    rows, ids = {name: np.arange(size) for name, size in sizes.items()}, ids_of(sizes)

    def left(schedule: Schedule) -> dict[str, int]:
        return left_over(schedule.plan(rows, ids, 4, 1, 0), sizes)

    assert sum(left(Schedule("example-mixing")).values()) == 64 % 4
    assert left(Schedule("two-stage", stages=(StageRule("x", ("b",), 1, None, 0.5),))) == {"a": 40, "b": 9, "c": 3}
    assert left(Schedule("temperature-proportional", temperature=1e9)) == {"a": 40 - 8 * 4, "b": 1, "c": 3}


def test_stages_and_mixed_steps_are_in_the_fingerprint():
    ids = ids_of({"a": 4})
    plan = Plan(("a",), *(np.array(one) for one in ([0, 0], [0, 0], [0, 2, 4], [0, 1, 2, 3])))
    made = [plan, replace(plan, starts=np.array([0, 2])), replace(plan, starts=np.array([0, 1, 2]))]
    made += [replace(plan, stages=(Stage("x", 2, rate),)) for rate in (None, 1e-3, 2e-3)]
    assert len({fingerprint(one, ids) for one in made}) == len(made)


@pytest.mark.ray
def test_bags_of_all_schedules_are_stored_and_read_back(ray_cluster, tmp_path):
    store, rule = Store(tmp_path), BagRule(1.0, 3)
    parts = write_corpus(store, SIZES)
    stages = (StageRule("first", ("a",), 2, 1e-3), StageRule("none", ("x",), 1), StageRule("all", ("a", "b"), 1))
    jobs = [
        job("staged", rule, parts, schedule=Schedule("two-stage", stages=stages)),
        job("mixed", rule, parts, schedule=Schedule("example-mixing")),
        job("some", replace(rule, datasets=("b",)), parts),
    ]
    bags = make_bags(store, jobs)
    plans = {name: open_plan(store, bag.key) for name, bag in bags.items()}
    assert plans["staged"].stages == (Stage("first", 16, 1e-3), Stage("all", 12))
    assert len(plans["staged"]) == bags["staged"].figures["steps"] == 28
    assert len(plans["mixed"]) == bags["mixed"].figures["steps"] == 101 // 8
    assert {part.dataset for part in plans["mixed"].parts(0)} == {"a", "b"}
    assert bags["some"].figures["examples"] == {"b": 37}
    assert plans["some"].datasets == ("b",)
    shared = compare({name: bags[name] for name in ("some", "mixed")}, SIZES)
    assert shared.sizes == {"some": 37, "mixed": 101}
    np.testing.assert_allclose(shared.shared, [[1, 1], [37 / 101, 1]])
    assert compare({"some": bags["some"]}, SIZES).coverage == pytest.approx(37 / 101)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("example-mixing"), r"all datasets together have not training.batch_size=300 examples"),
        (Schedule("two-stage", stages=(StageRule("x", ("a",), 1),)), r"no dataset of a stage has"),
    ],
)
def test_other_schedules_without_a_step_say_what_to_do(ray_cluster, tmp_path, schedule, message):
    store = Store(tmp_path)
    with pytest.raises(DataError, match=message):
        make_bags(store, [job("small", BagRule(1.0, 0), write_corpus(store, SIZES), 300, schedule)])
