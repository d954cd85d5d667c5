from __future__ import annotations

import pytest

from boom_ray.bags.granularity import granular_bags
from boom_ray.bags.stage import rule_of
from boom_ray.config import BagConfig, BagsConfig, DatasetConfig

KINDS = {"b": "retrieval", "a": "sts", "c": "retrieval", "core": "clustering"}
DATASETS = [DatasetConfig(name=name, source="-", task_type=kind) for name, kind in KINDS.items()]
CLUSTERS = [("core", "b"), ("a",), ("c",)]


def parts(granularity, datasets=DATASETS, clusters=()) -> dict[str, tuple[str, ...]]:
    return {bag.name: bag.datasets for bag in granular_bags(granularity, datasets, clusters)}


def test_a_bag_per_dataset_task_type_or_cluster():
    assert parts("dataset") == {f"dataset-{name}": (name,) for name in KINDS}
    assert parts("task_type") == {"task-retrieval": ("b", "c"), "task-sts": ("a",), "task-clustering": ("core",)}
    assert parts("cluster", clusters=CLUSTERS) == {
        "cluster-1": ("core", "b"), "cluster-2": ("a",), "cluster-3": ("c",),
    }  # fmt: skip


@pytest.mark.parametrize("granularity", ["dataset", "task_type", "cluster"])
def test_the_bags_are_whole_and_have_every_dataset_once(granularity):
    bags = granular_bags(granularity, DATASETS, CLUSTERS)
    assert sorted(name for bag in bags for name in bag.datasets) == sorted(KINDS)
    assert {bag.ratio for bag in bags} == {1.0}
    BagsConfig(members=bags).check_datasets(DATASETS)  # names are free and unique


def test_what_is_the_same_draw_is_the_same_rule_whatever_it_is_called():
    def rules(granularity) -> dict[str, object]:
        bags = BagsConfig(members=granular_bags(granularity, DATASETS, CLUSTERS))
        return {bag.name: rule_of(bag, bags, 3) for bag in bags.members}

    single, clusters, tasks = rules("dataset"), rules("cluster"), rules("task_type")
    assert single["dataset-a"] == clusters["cluster-2"] == tasks["task-sts"]
    assert len({*single.values(), *clusters.values(), *tasks.values()}) == 6


def test_a_bag_of_all_datasets_is_the_bag_of_everything():
    every = [one.model_copy(update={"task_type": "sts"}) for one in DATASETS]
    (bag,) = granular_bags("task_type", every)
    bags = BagsConfig(members=(bag,))
    plain = BagsConfig(members=(BagConfig(name="bag-100", ratio=1.0),))
    assert rule_of(bag, bags, 3) == rule_of(plain.members[0], plain, 3)


@pytest.mark.parametrize("clusters", [[("a", "b"), ("c",)], [("a", "b"), ("b", "c", "core")], [("a", "b", "c", "x")]])
def test_clusters_that_are_no_partition_are_refused(clusters):
    with pytest.raises(ValueError, match="must have every dataset once: a, b, c, core; they have"):
        granular_bags("cluster", DATASETS, clusters)
