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


def spec(count: int = 2, **fields: object) -> dict[str, object]:
    return resolve(MergeConfig.model_validate(fields), members(*[1] * count)).spec()


def test_only_what_decides_the_bytes_is_in_the_spec() -> None:
    assert spec(method="linear") == spec(method="linear", weights=(2, 2), chunk_mb=1, cpus=3, distribute_gb=0)
    assert spec(method="ties") == spec(method="ties", parameters={"density": 0.2})
    assert spec(method="multislerp", base="base") != spec(method="multislerp")
    assert spec(method="task_arithmetic", parameters={"scale": 3}) != spec(method="task_arithmetic")
    assert spec(method="task_arithmetic")["base"] == "base" and spec(method="linear")["base"] == "none"
    assert spec(shard_gb=1) != spec()


def test_rules_change_weights_and_parameters_field_by_field() -> None:
    rules = [
        {"tensors": "*", "layers": "0-3", "parameters": {"density": 0.5}},
        {"tensors": ["embeddings.*", "*.1.*"], "weights": [3, 1], "parameters": {"scale": 2}},
    ]
    recipe = resolve(MergeConfig.model_validate({"method": "ties", "rules": rules}), members(1, 1))
    found = {key: recipe.at(key) for key in ("embeddings.w", "layer.1.w", "layer.3.w", "layer.4.w")}
    weights = {key: value[0].tolist() for key, value in found.items()}
    assert weights["embeddings.w"] == weights["layer.1.w"] == [0.75, 0.25]
    assert weights["layer.3.w"] == weights["layer.4.w"] == [0.5, 0.5]
    numbers = {key: (value[1]["density"], value[1]["scale"]) for key, value in found.items()}
    assert numbers == {
        "embeddings.w": (0.2, 2),
        "layer.1.w": (0.5, 2),
        "layer.3.w": (0.5, 1),
        "layer.4.w": (0.2, 1),
    }


@pytest.mark.parametrize(
    ("count", "fields", "text"),
    [
        (3, {"method": "slerp"}, "slerp merges exactly 2 members; there are 3"),
        (2, {"method": "linear", "base": "base"}, "linear works on whole weights"),
        (3, {"weights": [1, 1]}, "2 numbers for 3 members"),
        (3, {"rules": [{"tensors": "*", "weights": [1, 1]}]}, "2 numbers for 3 members"),
        (
            2,
            {"method": "ties", "parameters": {"scope": "model"}, "rules": [{"tensors": "*"}]},
            "looks at the whole model",
        ),
    ],
)
def test_recipes_that_do_not_fit_the_members_are_refused(count: int, fields: dict[str, object], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        spec(count, **fields)
