"""Folders of different versions of the libraries that say the same, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.reading.facts import config_difference, difference, first_difference, named_facts, short
from tests.plain_model import FILES, WriteModel

TENSORS = {"w": torch.ones(2)}


def facts(write_model: WriteModel, name: str = "bag", **files: Any) -> dict[str, Any]:
    named = {file.replace("__", "/") + ".json": value for file, value in files.items()}
    return dict(named_facts(open_checkpoint(write_model(name, TENSORS, files=named), name)))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "1_Pooling__config",
            {"word_embedding_dimension": 4, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            {"embedding_dimension": 4, "pooling_mode": "cls", "include_prompt": True},
        ),
        ("1_Pooling__config", {"word_embedding_dimension": 4}, {"embedding_dimension": 4, "pooling_mode": "mean"}),
        (
            "config_sentence_transformers",
            {"__version__": {"pytorch": "1"}},
            {"prompts": {"query": "", "document": ""}, "similarity_fn_name": "cosine", "default_prompt_name": None},
        ),
        ("sentence_bert_config", None, {"do_lower_case": False, "transformer_task": "feature-extraction"}),
        (
            "tokenizer",
            FILES["tokenizer.json"],
            FILES["tokenizer.json"] | {"truncation": None, "padding": {"length": 3}},
        ),
    ],
)
def test_two_versions_that_say_the_same(write_model: WriteModel, file: str, old: Any, new: Any) -> None:
    assert first_difference(facts(write_model, "old", **{file: old}), facts(write_model, "new", **{file: new})) is None


def test_poolings_that_are_joined_differ_from_one(write_model: WriteModel) -> None:
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    assert facts(write_model, **{"1_Pooling__config": both})["1_Pooling/config.json"]["pooling_mode"] == ["cls", "mean"]


@pytest.mark.parametrize(
    ("files", "length"),
    [
        ({"sentence_bert_config": {"max_seq_length": 9}, "tokenizer_config": {"model_max_length": 8}}, 9),
        ({"sentence_bert_config": {"max_seq_length": None}, "tokenizer_config": {"model_max_length": 8}}, 8),
        (
            {
                "tokenizer_config": {"model_max_length": 1e30},
                "config": FILES["config.json"] | {"max_position_embeddings": 6},
            },
            6,
        ),
        (
            {
                "tokenizer_config": {"model_max_length": 8},
                "config": FILES["config.json"] | {"max_position_embeddings": 6},
            },
            6,
        ),
        ({"tokenizer_config": {}}, None),
        ({}, None),
    ],
)
def test_the_longest_text_wherever_it_is_said(
    write_model: WriteModel, files: dict[str, Any], length: int | None
) -> None:
    assert facts(write_model, **files)["sentence_bert_config.json"]["max_seq_length"] == length


def test_configs_that_differ_in_defaults_only() -> None:
    base = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2}
    assert config_difference(base, base | {"hidden_act": "gelu", "layer_norm_eps": 1e-12}) is None
    assert config_difference(base, base | {"hidden_act": "relu"}) == ("hidden_act", "gelu", "relu")
    assert config_difference(base, base | {"hidden_act": "gelu", "own": 1}) == ("own", None, 1)
    unknown = {"model_type": "unheard-of"}
    assert config_difference(unknown, unknown | {"hidden_act": "gelu"}) == ("hidden_act", None, "gelu")


def tokenizers(write_model: WriteModel, left: Any, right: Any) -> tuple[str, Any, Any] | None:
    """How two models' tokenizer_config.json differ; a list is (that, special_tokens_map.json, tokenizer.json)."""
    found = []
    for name, value in (("old", left), ("new", right)):
        config, special, whole = value if isinstance(value, list) else (value, None, FILES["tokenizer.json"])
        files = {"tokenizer_config": config, "special_tokens_map": special, "tokenizer": whole}
        found.append(facts(write_model, name, **files)["tokenizer_config.json"])
    return difference("0_Transformer/tokenizer_config.json", *found)


BERT = {"tokenizer_class": "BertTokenizer"}
LEFT = FILES["tokenizer.json"] | {"padding": {"direction": "Left"}, "truncation": {"direction": "Right"}}


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ({"padding_side": "left"}, {"padding_side": "right"}, ("padding_side", "left", "right")),
        ({"padding_side": "left"}, {}, ("padding_side", "left", "right")),
        ([{}, None, LEFT], None, ("padding_side", "left", "right")),
        ({}, {"truncation_side": "left"}, ("truncation_side", "right", "left")),
        ({"add_eos_token": True}, {"add_eos_token": False}, ("add_eos_token", True, False)),
        ({"do_lower_case": True}, {"do_lower_case": False}, ("do_lower_case", True, False)),
        (BERT, BERT | {"do_lower_case": False}, ("do_lower_case", True, False)),
        ({"pad_token": "[PAD]"}, {"pad_token": {"content": "<pad>"}}, ("pad_token", "[PAD]", "<pad>")),
        ([{}, {"cls_token": "[CLS]"}, None], {"cls_token": "<s>"}, ("cls_token", "[CLS]", "<s>")),
        (BERT | {"sep_token": "</s>"}, {}, ("sep_token", "</s>", "[SEP]")),
    ],
)
def test_what_tokenizers_do_with_a_text(write_model: WriteModel, left: Any, right: Any, told: Any) -> None:
    assert tokenizers(write_model, left, right) == told


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (None, {"padding_side": "right", "truncation_side": "right", "model_max_length": 8}),
        ([{"padding_side": "left"}, None, None], [{}, None, LEFT]),
        (BERT, BERT | {"do_lower_case": True, "sep_token": "[SEP]", "strip_accents": None}),
        ({}, {"add_bos_token": True, "eos_token": "</s>"}),
        ([{}, {"pad_token": {"content": "<pad>", "lstrip": False}}, None], {"pad_token": "<pad>"}),
        ({"tokenizer_class": "torch"}, {"tokenizer_class": "Unheard", "do_lower_case": True, "backend": "tokenizers"}),
    ],
)
def test_two_versions_whose_tokenizers_do_the_same(write_model: WriteModel, left: Any, right: Any) -> None:
    assert tokenizers(write_model, left, right) is None
    assert tokenizers(write_model, right, left) is None


def test_long_values_are_cut() -> None:
    assert short(None) == "nothing" and short("x") == "'x'"
    assert len(short("x" * 200)) == 78 and short("x" * 200).endswith("…")
