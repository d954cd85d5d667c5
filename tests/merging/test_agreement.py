"""Models that cannot be merged, and the first difference that is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.agreement import align_base, check_members
from boom_ray.merging.checkpoint import open_checkpoint
from tests.plain_model import FILES, WriteModel

TENSORS = {"layer.w": torch.ones(2, 3), "layer.b": torch.ones(3)}


def check(write_model: WriteModel, tensors: dict[str, torch.Tensor], output: str = "members", **files: Any) -> None:
    named = {name.replace("__", "/") + ".json": value for name, value in files.items()}
    first, second = write_model("bag0", TENSORS), write_model("bag1", tensors, files=named)
    check_members([open_checkpoint(first, "bag0"), open_checkpoint(second, "bag1")], output)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"layer.w": torch.ones(2, 3)}, "bag1 has no tensor layer.b, which bag0 has"),
        (TENSORS | {"head": torch.ones(1)}, "bag0 has no tensor head, which bag1 has"),
        (TENSORS | {"layer.w": torch.ones(3, 3)}, r"layer.w has shape \[2, 3\] in bag0 and \[3, 3\] in bag1"),
        (TENSORS | {"layer.b": torch.ones(3).half()}, "layer.b is torch.float32 in bag0 and torch.float16 in bag1"),
    ],
)
def test_the_first_differing_tensor(write_model: WriteModel, tensors: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(MergeError, match=text):
        check(write_model, tensors)


def test_types_may_differ_when_the_output_type_is_named(write_model: WriteModel) -> None:
    check(write_model, TENSORS | {"layer.b": torch.ones(3).half()}, output="float32")
    with pytest.raises(MergeError, match=r"float32 in bag0 and torch\.int64 in bag1"):
        check(write_model, TENSORS | {"layer.b": torch.ones(3).long()}, output="float32")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"config": FILES["config.json"] | {"hidden_size": 8}}, r"config\.json, hidden_size: 4 and 8"),
        ({"config": FILES["config.json"] | {"extra": 1}}, r"config\.json, extra: nothing and 1"),
        ({"1_Pooling__config": {"pooling_mode": "cls"}}, r"1_Pooling/config\.json, pooling_mode: 'mean' and 'cls'"),
        (
            {"config_sentence_transformers": {"prompts": {"query": "Q: "}}},
            r"config_sentence_transformers\.json, prompts\.query: 'q: ' and 'Q: '",
        ),
        ({"tokenizer": {"model": {"vocab": {"b": 0}}}}, r"tokenizer\.json, model\.vocab\.a: 0 and nothing"),
        ({"modules": FILES["modules.json"][:1]}, r"modules\.json: \[\['Transformer"),
        ({"sentence_bert_config": {"max_seq_length": 9}}, r"sentence_bert_config\.json: nothing and"),
    ],
)
def test_the_first_difference_outside_the_weights(write_model: WriteModel, files: dict[str, Any], text: str) -> None:
    with pytest.raises(MergeError, match="bag0 and bag1 differ in " + text):
        check(write_model, TENSORS, **files)


def test_what_does_not_change_a_vector_may_differ(write_model: WriteModel) -> None:
    check(
        write_model,
        TENSORS,
        config=FILES["config.json"] | {"_name_or_path": "x", "transformers_version": "9", "dtype": "float16"},
        tokenizer=FILES["tokenizer.json"] | {"truncation": None, "padding": {"strategy": "BatchLongest"}},
        config_sentence_transformers=FILES["config_sentence_transformers.json"] | {"__version__": {"pytorch": "9"}},
    )


def test_a_base_may_have_a_prefix_a_head_and_another_type(write_model: WriteModel) -> None:
    base = {f"model.{name}": tensor.bfloat16() for name, tensor in TENSORS.items()} | {"lm_head.weight": torch.ones(1)}
    folder = write_model("base", base, files={"modules.json": None, "1_Pooling/config.json": None})
    member = open_checkpoint(write_model("bag0", TENSORS | {"ids": torch.arange(2)}), "bag0")
    found = align_base(open_checkpoint(folder, "base"), member)
    assert {key: info.name for key, info in found.items()} == {name: f"model.{name}" for name in TENSORS}


def test_a_base_of_another_model_is_refused(write_model: WriteModel) -> None:
    member = open_checkpoint(write_model("bag0", TENSORS), "bag0")
    with pytest.raises(MergeError, match=r"base has no tensor layer\.b, which member bag0 has"):
        align_base(open_checkpoint(write_model("base", {"layer.w": torch.ones(2, 3)}), "base"), member)
    with pytest.raises(MergeError, match=r"layer\.b has shape \[4\] in base and \[3\] in bag0"):
        align_base(open_checkpoint(write_model("big", TENSORS | {"layer.b": torch.ones(4)}), "base"), member)
