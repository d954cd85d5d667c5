from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.bags.schedules.shuffled import (
    batch_level_shuffling,
    round_robin,
    shares,
    temperature_proportional,
)
from tests.bags.plans import sizes, steps, supply, uses

batches, epochs, seeds = st.integers(1, 8), st.integers(1, 3), st.integers(0, 99)


def plain(bag, epochs: int):
    return batch_level_shuffling(bag.rows, bag.ids, bag.batch_size, epochs, bag.seed)


@settings(deadline=None, max_examples=50)
@given(sizes, batches, epochs, seeds)
def test_turns_go_round_until_a_dataset_is_used_up(sizes, batch, epochs, seed):
    bag = supply(sizes, batch, seed)
    sequence = sorted(sizes, reverse=True)
    found = steps(round_robin(bag, sequence, epochs))
    expected = [
        (name, epoch)
        for epoch in range(epochs)
        for turn in range(max(sizes.values()) // batch)
        for name in sequence
        if sizes[name] // batch > turn
    ]
    assert [(name, epoch) for name, epoch, _ in found] == expected
    assert sorted(found) == sorted(steps(plain(bag, epochs)))  # the same batches in another order


@settings(deadline=None, max_examples=50)
@given(sizes, batches, epochs, seeds)
def test_temperature_one_is_batch_level_shuffling(sizes, batch, epochs, seed):
    bag = supply(sizes, batch, seed)
    assert steps(temperature_proportional(bag, 1.0, epochs)) == steps(plain(bag, epochs))


@settings(deadline=None, max_examples=50)
@given(sizes, batches, epochs, seeds, st.floats(1, 50))
def test_a_proportional_mix_has_as_many_steps_and_ends_passes_before_it_begins_others(
    sizes, batch, epochs, seed, temperature
):
    bag = supply(sizes, batch, seed)
    plan = temperature_proportional(bag, temperature, epochs)
    assert len(plan) == epochs * sum(size // batch for size in sizes.values())
    share = shares({name: size // batch for name, size in sizes.items()}, temperature)
    per_epoch = len(plan) // epochs
    for start in range(0, len(plan), per_epoch or 1):
        own = Counter(name for name, _, _ in steps(plan)[start : start + per_epoch])
        assert own == {name: count for name, count in share.items() if count}
    assert set(uses(plan).values()) <= {1}  # in one pass every example occurs once at most
    for name, size in sizes.items():
        passes = Counter(number for other, number, _ in steps(plan) if other == name)
        full = size // batch
        assert all(count == full for number, count in passes.items() if number < max(passes))
        assert sorted(passes) == list(range(len(passes)))
        assert sum(passes.values()) == epochs * share[name]


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500), min_size=1), st.floats(1, 100))
def test_shares_are_the_nearest_whole_numbers_and_flatter_than_sizes(counts, temperature):
    found = shares(counts, temperature)
    total = sum(counts.values())
    assert sum(found.values()) == total
    powers = {name: count ** (1 / temperature) if count else 0.0 for name, count in counts.items()}
    for name, count in counts.items():
        exact = total * powers[name] / sum(powers.values()) if total else 0.0
        assert abs(found[name] - exact) < 1 + 1e-6
        assert (found[name] > 0) == (count > 0)
    by_size = sorted(counts, key=lambda name: counts[name])
    assert all(found[one] <= found[other] + 1 for one, other in itertools.pairwise(by_size))
    assert found == shares(dict(reversed(counts.items())), temperature)


def test_shares_of_known_sizes():
    assert shares({"a": 100, "b": 400, "c": 0}, 2.0) == {"a": 167, "b": 333, "c": 0}
    assert shares({"b": 1, "a": 1, "c": 3}, 1e9) == {"a": 2, "b": 1, "c": 2}  # what is left: by fraction, then by name
    assert shares({"a": 1, "b": 999}, 1e9) == {"a": 500, "b": 500}
    assert shares({"a": 0}, 2.0) == {"a": 0}


def test_a_small_dataset_repeats_in_another_order_and_a_large_one_goes_on():
    bag = supply({"a": 8, "b": 200}, 4, seed=3)
    plan = temperature_proportional(bag, 1e6, 2)
    own = [(number, rows) for name, number, rows in steps(plan) if name == "a"]
    assert len(own) == 52 == len(plan) // 2
    assert {number for number, _ in own} == set(range(26))
    assert len({tuple(rows) for _, rows in own}) > 26
    large = [row for name, number, rows in steps(plan) if name == "b" for row in rows if number == 0]
    assert sorted(large) == list(range(200))  # 104 in the first epoch, 96 in the second, none twice
