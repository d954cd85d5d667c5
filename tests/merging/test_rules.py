"""Rules speak about the tensors they name, and a rule about nothing is an error."""

from __future__ import annotations

import pytest

from boom_ray.errors import MergeError
from boom_ray.merging.rules import Rule, check_rules, layer_of, parse_layers

KEYS = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.output.LayerNorm.weight",
    "encoder.layer.10.output.dense.weight",
    "2_Dense/linear.weight",
)


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("1_Dense/encoder/layer.3.attn/kernel", 3),
        (KEYS[0], None),
        (KEYS[1], 0),
        (KEYS[2], 10),
        (KEYS[3], None),
        ("layers.7.mlp.weight", 7),
        ("0_Transformer/h.3.attn.c_proj.4.bias", 3),
        ("blocks_2.weight", None),
    ],
)
def test_the_layer_is_the_first_number_between_dots(key: str, layer: int | None) -> None:
    assert layer_of(key) == layer


def test_names_with_and_without_module_and_layers_decide() -> None:
    assert [key for key in KEYS if Rule(("embeddings.*",)).matches(key)] == [KEYS[0]]
    assert [key for key in KEYS if Rule(("linear.*", "*Norm*")).matches(key)] == [KEYS[1], KEYS[3]]
    assert [key for key in KEYS if Rule(("2_Dense/*",)).matches(key)] == [KEYS[3]]
    assert [key for key in KEYS if Rule(("*",), layers=(0, 9)).matches(key)] == [KEYS[1]]
    assert [key for key in KEYS if Rule(("*.dense.*",), layers=(10, 10)).matches(key)] == [KEYS[2]]
    assert not Rule(("LAYERNORM*",)).matches(KEYS[1])


def test_names_may_hold_brackets_and_slashes() -> None:
    assert Rule(("é ü[0].weight",)).matches("é ü[0].weight") and Rule(("é ü[0].weight",)).matches(
        "2_Dense/é ü[0].weight"
    )
    assert not Rule(("é ü[0].weight",)).matches("é ü[1].weight")
    key = "2_Dense/block/linear.weight"
    assert all(Rule((name,)).matches(key) for name in (key, "block/linear.weight", "block/*", "linear.*", "2_Dense/*"))
    assert not Rule(("Dense/*",)).matches(key) and not Rule(("inear.*",)).matches(key)


def test_ranges_of_layers() -> None:
    assert parse_layers(None) is None and parse_layers("7") == (7, 7) and parse_layers("0-5") == (0, 5)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule(("embedings.*",)), r"merge.rules.1: no tensor is named like 'embedings\.\*'; there are embeddings"),
        (Rule(("*", "nothing")), r"no tensor is named like 'nothing'"),
        (Rule(("*",), layers=(11, 20)), r"in layers \(11, 20\); the model's layers are 0-10"),
        (Rule(("embeddings.*",), layers=(0, 20)), r"no tensor like embeddings\.\* lies in layers"),
    ],
)
def test_a_rule_about_nothing_is_an_error(rule: Rule, text: str) -> None:
    check_rules([Rule(("*",))], KEYS)
    with pytest.raises(MergeError, match=text):
        check_rules([Rule(("*",)), rule], KEYS)
