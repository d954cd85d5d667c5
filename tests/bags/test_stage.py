from __future__ import annotations

import numpy as np
import pytest

from boom_ray.artifacts.plan import open_plan
from boom_ray.bags.sampling import BagRule
from boom_ray.bags.stage import BagJob, compare, core_rule, load_rows, make_bags, rule_of
from boom_ray.config import BagConfig, BagsConfig, MixtureConfig
from boom_ray.errors import DataError
from boom_ray.store import Store
from tests.token_corpus import write_corpus

SIZES = {"a": 64, "b": 37}


def job(name: str, rule: BagRule, parts: dict[str, list[str]], batch: int = 8) -> BagJob:
    mixture = MixtureConfig().identity()
    return BagJob(name, rule, rule.seed, batch, 1, mixture, 0, "corpus-fingerprint", parts)


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
