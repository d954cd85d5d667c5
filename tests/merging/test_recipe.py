"""Weights and parameters of a recipe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.methods.registry import METHODS
from boom_ray.merging.recipe import MemberRef, Recipe, normalised_weights, resolve


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


def test_weights_may_be_as_large_and_as_small_as_numbers_are() -> None:
    assert normalised_weights((1e308, 1e308, 1e308), members(1, 1, 1)) == (1 / 3,) * 3
    assert normalised_weights((5e-324, 1.5e-323), members(1, 1)) == (0.25, 0.75)


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


def recipe(count: int = 2, **fields: object) -> Recipe:
    return resolve(MergeConfig.model_validate(fields), members(*[1] * count))


def spec(count: int = 2, **fields: object) -> dict[str, object]:
    return recipe(count, **fields).spec()


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


def ties(parameters: dict[str, Any], *rules: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose rules all speak about all tensors."""
    return {
        "method": "ties",
        "parameters": parameters,
        "rules": [{"tensors": "*", "parameters": changes} for changes in rules],
    }


def test_what_rules_make_of_the_parameters_decides_what_must_be_known() -> None:
    assert recipe(**ties({"density": 1})).needs == frozenset()
    assert recipe(**ties({"density": 1}, {"scale": 2}, {"density": 0.2})).needs == {"magnitudes"}
    assert recipe(**ties({"density": 0.2}, {"density": 1})).needs == {"magnitudes"}
    whole = ties({"scope": "model", "density": 1}, {"scope": "tensor", "density": 0.2})
    assert recipe(**whole).needs == {"magnitudes"}
    rows = {"method": "model_stock", "parameters": {"granularity": "row"}}
    assert recipe(**rows).needs == frozenset()
    assert recipe(**rows, rules=[{"tensors": "a", "parameters": {"granularity": "tensor"}}]).needs == {"gram"}


def test_many_rules_are_no_many_more_combinations() -> None:
    rules = [{"scale": float(number)} for number in range(40)] + [{"density": 1 / (2 + number)} for number in range(40)]
    assert recipe(**ties({"density": 1}, *rules)).needs == {"magnitudes"}


def test_rules_must_go_together_where_they_meet() -> None:
    rules = [
        {"tensors": "embeddings.*", "parameters": {"epsilon": 0.4}},
        {"tensors": "*.weight", "parameters": {"scale": 2}},
        {"tensors": ["*.bias", "embeddings.w.*"], "parameters": {"density": 0.2}},
    ]
    found = recipe(method="della_linear", parameters={"density": 0.5}, rules=rules)
    apart = recipe(
        method="della_linear", parameters={"density": 0.5}, rules=[rules[0], rules[1], rules[2] | {"tensors": "*.bias"}]
    )
    apart.check(["embeddings.p.weight", "layer.0.bias"])
    text = r"Tensor embeddings\.w\.weight: merge\.rules\.0 and merge\.rules\.1 and merge\.rules\.2 .* density 0\.2 plus"
    with pytest.raises(MergeError, match=text):
        found.check(["embeddings.p.weight", "layer.0.bias", "embeddings.w.weight"])


def test_methods_that_treat_members_alike_refuse_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "linear", replace(METHODS["linear"], equal_weights=True))
    assert spec(method="linear", weights="size")["weights"] == [0.5, 0.5]
    assert spec(method="linear", weights=[2, 2])["weights"] == [0.5, 0.5]
    with pytest.raises(MergeError, match=r"merge\.weights: linear has no place for the weights 0\.25, 0\.75; set"):
        spec(method="linear", weights=[1, 3])
    with pytest.raises(MergeError, match=r"merge\.rules\.1\.weights: linear has no place"):
        spec(method="linear", rules=[{"tensors": "a", "weights": [1, 1]}, {"tensors": "b", "weights": [1, 3]}])


def test_members_of_one_name_are_refused() -> None:
    twice = [MemberRef(name, "", "", 1) for name in ("a", "b", "a")]
    with pytest.raises(MergeError, match="used more than once: a"):
        resolve(MergeConfig(method="linear"), twice)


@pytest.mark.parametrize(
    ("count", "fields", "text"),
    [
        (3, {"method": "slerp"}, "slerp merges exactly 2 members; there are 3"),
        (2, {"method": "linear", "base": "base"}, "linear works on whole weights"),
        (3, {"weights": [1, 1]}, "2 numbers for 3 members"),
        (3, {"rules": [{"tensors": "*", "weights": [1, 1]}]}, r"merge\.rules\.0\.weights has 2 numbers for 3 members"),
        (
            2,
            {"method": "ties", "parameters": {"scope": "model"}, "rules": [{"tensors": "*", "weights": [1, 2]}]},
            "looks at the whole model here, so merge.rules cannot",
        ),
        (2, ties({}, {"density": 0.3}, {"scope": "model"}), "looks at the whole model here, so merge.rules.1 cannot"),
        (2, ties({"scope": "model", "density": 1}, {"density": 0.2}), "so merge.rules.0 cannot"),
        (2, ties({"density": 1}, {"scope": "model"}, {"scale": 2}, {"density": 0.2}), "so merge.rules.2 cannot"),
    ],
)
def test_recipes_that_do_not_fit_the_members_are_refused(count: int, fields: dict[str, object], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        spec(count, **fields)
