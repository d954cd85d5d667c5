"""Models for `benchmarks/merging.py`: a random base and members around it, written tensor by tensor in safetensors.

Every folder is a complete sentence-transformers model (configuration, tokenizer, pooling), so that all tools can load
it. The tokenizer is a small one of the folder's own; no network and no other file is needed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BLOCK = 1 << 22
"""Elements drawn at a time."""
BASE_SPREAD, MEMBER_SPREAD = 0.02, 0.0005
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Shape:
    """Size of a model.

    Attributes:
        name: how it is printed.
        family: ``bert`` or ``qwen3``.
        layers: Transformer layers.
        vocabulary: rows of the embedding matrix.
        dtype: type of the saved weights.
    """

    name: str
    family: str
    layers: int
    vocabulary: int
    dtype: torch.dtype

    def config(self) -> Any:
        """The transformers configuration."""
        from transformers import BertConfig, Qwen3Config

        if self.family == "bert":
            config = BertConfig(
                vocab_size=self.vocabulary,
                hidden_size=384,
                num_hidden_layers=self.layers,
                num_attention_heads=12,
                intermediate_size=1536,
            )
        else:
            config = Qwen3Config(
                vocab_size=self.vocabulary,
                hidden_size=1024,
                num_hidden_layers=self.layers,
                num_attention_heads=16,
                num_key_value_heads=8,
                head_dim=128,
                intermediate_size=3072,
                max_position_embeddings=32768,
                tie_word_embeddings=True,
                layer_types=["full_attention"] * self.layers,
                bos_token_id=None,
                eos_token_id=3,
                pad_token_id=0,
            )
        config.architectures = ["BertModel" if self.family == "bert" else "Qwen3ForCausalLM"]
        config.dtype = str(self.dtype).removeprefix("torch.")
        return config

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names as in the checkpoint and their shapes."""
        from transformers import AutoModel

        with torch.device("meta"):
            state = AutoModel.from_config(self.config()).state_dict()
        prefix = "" if self.family == "bert" else "model."
        return {prefix + name: tuple(value.shape) for name, value in state.items()}

    def parameters(self) -> int:
        """Number of elements."""
        return sum(math.prod(shape) for shape in self.tensors().values())

    def nbytes(self) -> int:
        """Size of one model's weights."""
        return self.parameters() * int(self.dtype.itemsize)


MINILM = Shape("minilm", "bert", 6, 30_522, torch.float32)
QWEN3 = Shape("0.6b", "qwen3", 28, 151_936, torch.bfloat16)
QWEN3_HALF = Shape("0.6b, 14 layers", "qwen3", 14, 151_936, torch.bfloat16)
TINY = {
    "bert": Shape("tiny bert", "bert", 1, 2_000, torch.float32),
    "qwen3": Shape("tiny qwen3", "qwen3", 1, 8_000, torch.bfloat16),
}


def make_models(home: Path, shape: Shape, members: int) -> list[Path]:
    """Write the base, then the members: base + N(0, 0.0005 k) for member k; the base is N(0, 0.02).

    Returns:
        Their folders, the base first.
    """
    folders = [home / name for name in ("base", *(f"member{number}" for number in range(1, members + 1)))]
    for folder in folders:
        folder.mkdir(parents=True)
        _write_rest(folder, shape)
    _write_weights([folder / "model.safetensors" for folder in folders], shape.tensors(), shape.dtype)
    return folders


def _write_weights(paths: list[Path], tensors: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    header, random = _header(tensors, dtype), torch.Generator().manual_seed(0)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb")) for path in paths]
        for stream in streams:
            stream.write(header)
        for shape in tensors.values():
            left = math.prod(shape)
            while left:
                size = min(left, BLOCK)
                base = torch.randn(size, generator=random) * BASE_SPREAD
                for number, stream in enumerate(streams):
                    spread = MEMBER_SPREAD * number
                    values = base + torch.randn(size, generator=random) * spread if spread else base
                    stream.write(memoryview(values.to(dtype).view(torch.uint8).numpy()))
                left -= size


def _header(tensors: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        stop = offset + math.prod(shape) * int(dtype.itemsize)
        header[name] = {
            "dtype": {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype],
            "shape": list(shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_rest(folder: Path, shape: Shape) -> None:
    """Everything but the weights."""
    config = shape.config()
    config.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (place, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None})
    (folder / "1_Pooling").mkdir()
    mode = "mean_tokens" if shape.family == "bert" else "lasttoken"
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.hidden_size, f"pooling_mode_{mode}": True}
        | ({"pooling_mode_mean_tokens": False} if mode == "lasttoken" else {}),
    )


def _tokenizer() -> Any:
    """Words of one letter."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
