from __future__ import annotations

import re

import pytest

from boom_ray.config import MixtureConfig
from boom_ray.errors import ConfigError
from boom_ray.sweeps.points import field_of, member_count, training_part, trial_config
from tests.sweeps.spaces import BAGS, HALVES, METHODS, sweep


def test_a_point_changes_its_keys_and_nothing_else():
    config = sweep({"training.learning_rate": {"choice": [1e-4]}, "seed": {"choice": [7]}}, store="/s", baseline=False)
    run = trial_config(config, {"training.learning_rate": 1e-4, "seed": 7})
    plain = trial_config(config, {})
    assert type(run).__name__ == "RunConfig"
    assert run == plain.model_copy(
        update={"seed": 7, "training": plain.training.model_copy(update={"learning_rate": 1e-4})}
    )
    assert plain == plain.model_validate(config.model_dump(include=set(type(plain).model_fields)))


def test_a_named_section_changes_the_keys_that_it_has():
    mixture = {"temperature": 2, "caps": {"a": 50}}
    config = sweep({"bags": {"choice": {"flat": {"ratios": [0.5], "mixture": {"temperature": 3}}, "halves": HALVES}}},
                   bags={"nested": True, "mixture": mixture})  # fmt: skip
    flat = trial_config(config, {"bags": "flat"}).bags
    assert (flat.ratios, flat.nested) == ((0.5,), True)
    assert flat.mixture == MixtureConfig(temperature=3, caps={"a": 50})
    halves = trial_config(config, {"bags": "halves"}).bags
    assert [bag.name for bag in halves.resolved()] == ["half", "rest"]
    assert halves.mixture == MixtureConfig(**mixture)


def test_free_mappings_are_replaced():
    space = {"merge": {"choice": {"a": {"method": "linear", "parameters": {}}, "b": {"method": "ties"}}}}
    config = sweep(space, merge={"method": "ties", "parameters": {"density": 0.3}})
    assert trial_config(config, {"merge": "a"}).merge.parameters == {}
    assert trial_config(config, {"merge": "b"}).merge.parameters == {"density": 0.3}


@pytest.mark.parametrize("point", [{"bags": "two"}, {"bags.ratios": [0.7]}])
def test_ratios_replace_bags_by_name(point):
    config = sweep({"bags": BAGS, "bags.ratios": {"choice": [[0.7]]}}, bags=HALVES)
    assert len(trial_config(config, {}).bags.members) == 2
    assert trial_config(config, point).bags.members == ()
    assert member_count(config, point) == (2 if "bags" in point else 1)


def test_keys_inside_a_section_win_over_the_section():
    config = sweep({"bags.mixture.temperature": {"choice": [4]}, "bags": BAGS})
    run = trial_config(config, {"bags.mixture.temperature": 4, "bags": "three"})
    assert run.bags.mixture.temperature == 4
    assert len(run.bags.ratios) == 3


def test_names_of_datasets_may_have_dots_and_items_of_lists_are_numbers():
    keys = {"bags.mixture.weights.b.c": 2.0, "bags.mixture.weights.a": 0.5, "bags.members.0.ratio": 0.25}
    config = sweep({key: {"choice": [value]} for key, value in keys.items()}, bags=HALVES)
    run = trial_config(config, keys)
    assert run.bags.mixture.weights == {"b.c": 2.0, "a": 0.5}
    assert run.bags.members[0].ratio == 0.25


def test_optional_sections_come_into_being():
    config = sweep({"training.matryoshka.dimensions": {"choice": [[64, 32]]}})
    run = trial_config(config, {"training.matryoshka.dimensions": [64, 32]})
    assert run.training.matryoshka is not None
    assert run.training.matryoshka.dimensions == (64, 32)


def test_weights_of_groups_are_rules_after_those_of_the_run():
    config = sweep(
        {"merge.weights": {"simplex": {"layers": ["0-1", "7", "embeddings.*"]}}},
        merge={"method": "ties", "rules": [{"layers": 7, "parameters": {"density": 0.5}}]},
    )
    point = {"0-1": [0.1, 0.9], "7": [0.2, 0.8], "embeddings.*": [0.3, 0.7], "rest": [0.4, 0.6]}
    merge = trial_config(config, {"merge.weights": point}).merge
    assert merge.weights == (0.4, 0.6)
    assert [(rule.layers, rule.tensors, rule.weights) for rule in merge.rules] == [
        ("7", ("*",), None), ("0-1", ("*",), (0.1, 0.9)), ("7", ("*",), (0.2, 0.8)),
        (None, ("embeddings.*",), (0.3, 0.7)),
    ]  # fmt: skip


def test_weights_that_do_not_apply_are_the_run_s_if_they_fit():
    simplex = {"simplex": {}, "when": {"merge.method": "ties"}}
    config = sweep({"bags": BAGS, "merge.method": METHODS, "merge.weights": simplex}, merge={"weights": [0.3, 0.7]})
    assert trial_config(config, {"bags": "two", "merge.method": "multislerp"}).merge.weights == (0.3, 0.7)
    assert trial_config(config, {"bags": "three", "merge.method": "multislerp"}).merge.weights == "equal"
    assert trial_config(config, {"bags": "three"}).merge.weights == "equal"


def test_learned_weights_come_from_self_positioning():
    config = sweep({"bags": BAGS}, "learned")
    assert trial_config(config, {"bags": "three"}).merge.method == "self_positioning"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.epoch", 2, "training.epoch: unknown key; did you mean epochs?"),
        ("bags.mixture.weigths.a", 2, "unknown key"),
        ("bags.mixture.weights.other", 2, "bags.mixture.weights names other, which is none of the datasets"),
        ("merge.parameters.densty", 0.5, "multislerp has no parameter densty"),
        ("training.learning_rate", -1, "training.learning_rate: Input should be greater than 0 (got -1)"),
        ("training.learning_rate.x", 1, "training"),
        ("bags.members.5.ratio", 0.5, "bags.members.5.ratio has no item 5; there are 0, counted from 0."),
        ("bags.ratios.0", 0.5, "bags.ratios.0 is one item of a list; search the whole list"),
    ],
)
def test_what_is_no_run_is_told_with_the_trial_s_keys(key, value, expected):
    config = sweep({key: {"choice": [value]}, "seed": {"choice": [3]}})
    with pytest.raises(ConfigError, match=re.escape(f"The trial with {key}={value}, seed=3")) as caught:
        trial_config(config, {key: value, "seed": 3})
    assert expected in str(caught.value)


def test_bags_that_do_not_go_together_cannot_be_counted():
    config = sweep({"bags": {"choice": {"bad": {"members": [{"name": "a", "complement_of": "b"}]}}}})
    with pytest.raises(ConfigError, match="The trial with bags=bad"):
        member_count(config, {"bags": "bad"})


def test_what_decides_members():
    point = {"merge.method": "ties", "seed": 1, "bags.ratios": [0.5], "training.epochs": 2, "merge.weights": [1.0]}
    assert training_part(point) == {"seed": 1, "bags.ratios": [0.5], "training.epochs": 2}


def test_fields_are_found_by_key():
    for key, description in {
        "seed": "seed of bags, order and dropout",
        "bags.mixture.caps": "most examples of a dataset, by its name; examples",
        "training.matryoshka.dimensions": "widths the loss is taken at, e.g. [384, 128, 64]",
    }.items():
        field = field_of(key)
        assert field is not None
        assert field.description == description
    assert field_of("training.epoch") is None
    assert field_of("merge.parameters.density") is None
