"""Tensors that files hold twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from boom_ray.errors import MergeError
from boom_ray.merging.reading.agreement import align_base, check_members
from boom_ray.merging.reading.checkpoint import open_checkpoint
from boom_ray.merging.reading.tied import PIECE, check_aliases
from tests.plain_model import FILES, WriteModel

WORDS = torch.arange(12.0).view(4, 3)
CONFIG = FILES["config.json"]
TIED = {"config.json": CONFIG | {"tie_word_embeddings": True}}


@pytest.mark.parametrize(
    ("source", "alias"),
    [
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("embed_tokens.weight", "lm_head.weight"),
        ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
        ("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
        ("shared.weight", "encoder.embed_tokens.weight"),
        ("transformer.wte.weight", "lm_head.weight"),
    ],
)
def test_the_repetition_is_left_out(write_model: WriteModel, source: str, alias: str) -> None:
    tensors = {source: WORDS, "norm.weight": torch.ones(3)}
    with_alias = open_checkpoint(write_model("bag0", tensors | {alias: WORDS}, files=TIED), "bag0")
    without = open_checkpoint(write_model("bag1", tensors, files=TIED), "bag1")
    assert list(with_alias.tensors) == sorted(tensors)
    assert [(one.name, two.name) for one, two in with_alias.aliases] == [(alias, source)]
    check_members([with_alias, without], "members")
    assert align_base(with_alias, without).keys() == tensors.keys()


def test_a_tied_bias_and_a_chain(write_model: WriteModel) -> None:
    tensors = {
        "shared.weight": WORDS,
        "encoder.embed_tokens.weight": WORDS,
        "lm_head.weight": WORDS,
        "cls.predictions.bias": torch.ones(4),
        "cls.predictions.decoder.bias": torch.ones(4),
    }
    checkpoint = open_checkpoint(write_model("bag", tensors, files=TIED), "bag")
    assert list(checkpoint.tensors) == ["cls.predictions.bias", "shared.weight"]
    assert {one.name: two.name for one, two in checkpoint.aliases} == {
        "encoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (CONFIG | {"tie_word_embeddings": False}, False),
        (CONFIG, True),  # a BERT that says nothing is tied
        (CONFIG | {"model_type": "qwen3"}, False),  # a Qwen3 is not
        (CONFIG | {"model_type": "unheard-of"}, False),
        (CONFIG | {"text_config": {"tie_word_embeddings": True}}, True),
    ],
)
def test_the_config_decides(write_model: WriteModel, config: dict[str, Any], tied: bool) -> None:
    tensors = {"embed_tokens.weight": WORDS, "lm_head.weight": WORDS}
    checkpoint = open_checkpoint(write_model("bag", tensors, files={"config.json": config}), "bag")
    assert ("lm_head.weight" not in checkpoint.tensors) == tied


def test_a_head_of_another_shape_or_without_embedding_is_a_tensor_of_its_own(write_model: WriteModel) -> None:
    other = {"embed_tokens.weight": WORDS, "lm_head.weight": torch.ones(5, 3)}
    assert "lm_head.weight" in open_checkpoint(write_model("one", other, files=TIED), "one").tensors
    alone = {"lm_head.weight": WORDS, "decoder.weight": WORDS}
    assert len(open_checkpoint(write_model("two", alone, files=TIED), "two").tensors) == 2


@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, PIECE + 6])
def test_different_values_are_refused_wherever_they_are(tmp_path: Path, write_model: WriteModel, place: int) -> None:
    words = torch.zeros(PIECE + 7, 1, dtype=torch.bfloat16)
    head = words.clone()
    head[place] = 1
    folder = write_model("bag", {"embed_tokens.weight": words, "lm_head.weight": head}, files=TIED)
    with open_checkpoint(folder, "bag7") as checkpoint, pytest.raises(MergeError) as caught:
        check_members([checkpoint], "members")
    assert "bag7: lm_head.weight and embed_tokens.weight hold different values" in str(caught.value)


def test_equal_bits_are_equal_and_types_count(write_model: WriteModel) -> None:
    odd = torch.tensor([[float("nan")], [-0.0]])
    check_aliases(open_checkpoint(write_model("a", {"wte.weight": odd, "lm_head.weight": odd}, files=TIED), "a"))
    mixed = {"wte.weight": torch.ones(2, 1), "lm_head.weight": torch.ones(2, 1).half()}
    with pytest.raises(MergeError, match="hold different values"):
        check_aliases(open_checkpoint(write_model("b", mixed, files=TIED), "b"))
