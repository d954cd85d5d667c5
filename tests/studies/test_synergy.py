from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from boom_ray.studies.synergy import SMALLEST, alike, cluster, distances, synergy

LINKAGES = ["average", "complete", "single"]


def planted(groups, seed: int = 0, within: float = 0.1, across: float = -0.05, noise: float = 0.02):
    """Names, separate losses and joint losses of datasets that help those of their group and disturb the others."""
    rng = np.random.default_rng(seed)
    names = [name for group in groups for name in group]
    order = rng.permutation(len(names))
    names = [names[place] for place in order]
    where = {name: number for number, group in enumerate(groups) for name in group}
    separate = rng.uniform(0.2, 4.0, len(names))  # losses of quite different sizes
    same = np.array([[where[one] == where[other] for other in names] for one in names])
    gains = np.where(same, within, across) + rng.normal(0, noise, same.shape)
    return names, separate, separate[:, None] * (1 - gains)


def test_synergy_is_the_sum_of_relative_gains():
    found = synergy([2.0, 0.5, 1.0], [[9.0, 1.5, 2.2], [0.6, 9.0, 0.5], [0.9, 1.0, 9.0]])
    expected = {(0, 1): 0.25 - 0.2, (0, 2): -0.1 + 0.1, (1, 2): 0.0}
    for (one, other), value in expected.items():
        assert found[one, other] == pytest.approx(value)
        assert found[other, one] == pytest.approx(value)
    assert np.isnan(np.diag(found)).all()


def test_a_loss_of_nothing_does_not_decide_by_noise():
    found = synergy([1e-6, 1.0], [[0, 1e-4], [0.9, 0]])
    assert found[0, 1] == pytest.approx((1e-6 - 1e-4) / SMALLEST + 0.1)


def test_the_best_pair_is_at_distance_nothing():
    found = synergy([1.0, 1.0, 1.0], [[0, 0.8, 1.1], [0.9, 0, 1.0], [1.0, 1.2, 0]])
    apart = distances(found)
    assert apart[0, 1] == 0
    assert apart[0, 2] == pytest.approx(0.3 + 0.1)
    assert (np.diag(apart) == 0).all()
    assert (apart >= 0).all()


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found(linkage, seed):
    groups = [("a", "b", "c"), ("d", "e"), ("f", "g", "h", "i")]
    names, separate, joint = planted(groups, seed)
    found = cluster(names, synergy(separate, joint), 3, linkage)
    assert {frozenset(group) for group in found.clusters} == {frozenset(group) for group in groups}
    first = [names.index(group[0]) for group in found.clusters]
    assert first == sorted(first)
    assert all(list(group) == sorted(group, key=names.index) for group in found.clusters)
    shown = [names[place] for place in found.order]
    for group in groups:  # they stand together in pictures
        places = sorted(shown.index(name) for name in group)
        assert places == list(range(places[0], places[0] + len(group)))


@given(st.integers(1, 9), st.integers(2, 12), st.integers(0, 99), st.sampled_from(LINKAGES))
def test_there_are_as_many_clusters_as_asked_for_and_scipy_agrees(size, count, seed, linkage):
    names, separate, joint = planted([tuple("abcdefghi"[:size])], seed, noise=0.3)
    found = cluster(names, synergy(separate, joint), count, linkage)
    assert sorted(name for group in found.clusters for name in group) == sorted(names)
    assert len(found.clusters) == min(count, size)
    if size > 1:
        flat = hierarchy.cut_tree(found.tree, min(count, size)).ravel()
        expected = {frozenset(n for n, own in zip(names, flat, strict=True) if own == label) for label in set(flat)}
        assert {frozenset(group) for group in found.clusters} == expected


def test_ties_are_no_dice():
    names = list("abcd")
    found = synergy(np.ones(4), np.ones((4, 4)))
    first = cluster(names, found, 2)
    assert [cluster(names, found.copy(), 2).clusters for _ in range(3)] == [first.clusters] * 3
    assert len(first.clusters) == 2


def test_the_same_clusters_stand_together():
    names, separate, joint = planted([["a", "b"], ["c", "d"]])
    found = synergy(separate, joint)
    two, three = cluster(names, found, 2), cluster(names, found, 3)
    other = cluster(names, found * 2, 2)
    groups = alike({"one": two, "few": three, "again": cluster(names, found, 2), "other": other})
    assert [arms for arms, _ in groups] == [["one", "again"], ["few"], ["other"]]
    assert [one for _, one in groups] == [two, three, other]
