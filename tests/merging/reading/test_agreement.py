"""Models that cannot be merged, and the first difference that is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.reading.agreement import align_base, check_members
from boom_ray.merging.reading.checkpoint import open_checkpoint
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
        ({"tokenizer_config": {"padding_side": "left"}}, r"tokenizer_config\.json, padding_side: 'right' and 'left'"),
        ({"modules": FILES["modules.json"][:1]}, r"modules\.json: \[\['Transformer"),
        ({"sentence_bert_config": {"max_seq_length": 9}}, r"sentence_bert_config\.json, max_seq_length: nothing and 9"),
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


@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "model.embed_tokens.weight"])
def test_vocabularies_of_different_size_have_their_own_sentence(write_model: WriteModel, name: str) -> None:
    one, two = (write_model(f"bag{rows}", {name: torch.ones(rows, 4)}) for rows in (7, 9))
    with pytest.raises(MergeError, match=rf"vocabularies differ: {name} has 7 rows in bag7 and 9 in bag9.* tokenizer"):
        check_members([open_checkpoint(one, "bag7"), open_checkpoint(two, "bag9")], "members")
    with pytest.raises(MergeError, match="9 rows in base and 7 in bag7"):
        align_base(open_checkpoint(two, "base"), open_checkpoint(one, "bag7"))


def test_another_width_is_no_matter_of_the_vocabulary(write_model: WriteModel) -> None:
    name = "embeddings.word_embeddings.weight"
    one, two = (write_model(f"bag{width}", {name: torch.ones(7, width)}) for width in (4, 5))
    with pytest.raises(MergeError, match=r"has shape \[7, 4\] in bag4 and \[7, 5\] in bag5"):
        check_members([open_checkpoint(one, "bag4"), open_checkpoint(two, "bag5")], "members")


def test_dense_modules_must_do_the_same(write_model: WriteModel) -> None:
    dense = {"2_Dense": {"linear.weight": torch.eye(4)}}
    one, two = (write_model(name, TENSORS, modules=dense) for name in ("bag0", "bag1"))
    members = [open_checkpoint(one, "bag0"), open_checkpoint(two, "bag1")]
    check_members(members, "members")
    (two / "2_Dense" / "config.json").write_text('{"in_features": 4, "activation_function": "torch.nn.Tanh"}')
    with pytest.raises(MergeError, match=r"2_Dense/config\.json, activation_function: nothing and 'torch\.nn\.Tanh'"):
        check_members(members, "members")


def test_a_plain_folder_and_a_complete_one_differ(write_model: WriteModel) -> None:
    plain = write_model("plain", TENSORS, files={"modules.json": None, "1_Pooling/config.json": None})
    members = [open_checkpoint(plain, "plain"), open_checkpoint(write_model("bag0", TENSORS), "bag0")]
    for some in (members, members[::-1]):
        with pytest.raises(MergeError, match=r"Member plain \(.*/plain\) is a plain .* and bag0 is a complete .* copy"):
            check_members(some, "members")
