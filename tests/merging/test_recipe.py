"""Weights and parameters of a recipe."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.recipe import MemberRef, normalised_weights, resolve


def members(*examples: int) -> list[MemberRef]:
    return [MemberRef(f"bag{index}", "", "", count) for index, count in enumerate(examples)]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9))
def test_weights_sum_to_one_and_keep_their_ratios(raw: list[float]) -> None:
    weights = normalised_weights(raw, members(*[1] * len(raw)))
    assert math.fsum(weights) == pytest.approx(1, abs=1e-15)
    assert [weight * math.fsum(raw) for weight in weights] == pytest.approx(raw)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=5), st.sampled_from([2.0, 0.5, 1024.0]))
def test_a_common_factor_of_the_weights_changes_nothing(raw: list[int], factor: float) -> None:
    bags = members(*raw)
    assert normalised_weights([value * factor for value in raw], bags) == normalised_weights(raw, bags)


def test_size_weights_follow_the_bags() -> None:
    assert normalised_weights("size", members(80, 100, 20)) == (0.4, 0.5, 0.1)
    assert normalised_weights("equal", members(80, 100)) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("weights", "bags", "text"),
    [
        ("equal", (), "nothing to merge"),
        ((1.0,), (1, 1), "1 numbers for 2 members"),
        ((0.0, 0.0), (1, 1), "sum to zero"),
        ("size", (0, 0), "sum to zero"),
        ((1.0, -1.0), (1, 1), "not negative"),
        ((1.0, math.nan), (1, 1), "finite"),
    ],
)
def test_bad_weights_are_refused(weights: str | tuple[float, ...], bags: tuple[int, ...], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        normalised_weights(weights, members(*bags))


def test_fields_that_a_method_does_not_read_leave_no_trace() -> None:
    def spec(**fields: object) -> dict[str, object]:
        return resolve(MergeConfig.model_validate(fields), members(1, 1)).spec()

    assert spec(method="linear", scale=3, base="base") == spec(method="linear", weights=(2, 2), chunk_mb=1)
    assert spec(method="multislerp", scale=3) == spec(method="multislerp")
    assert spec(method="multislerp", base="base") != spec(method="multislerp")
    assert spec(method="task_arithmetic", scale=3) != spec(method="task_arithmetic")
    assert spec(method="task_arithmetic")["base"] == "base"
