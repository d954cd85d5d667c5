"""Adapters trained by nobody: peft models with random values in all that is trained, saved, and merged by peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.tiny_model import make_tiny_model

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def make_base(folder: Path, kind: str = "bert", dtype: torch.dtype = torch.float32, head: bool = False) -> Path:
    """A tiny base with a tokenizer: ``bert`` is a sentence-transformers folder, ``qwen3`` and ``gpt2`` are plain.

    Args:
        folder: where to.
        kind: architecture.
        dtype: type of the weights.
        head: qwen3: saved as a language model, so that names begin with ``model.``.
    """
    if kind == "bert":
        make_tiny_model(folder)
    else:
        source = make_tiny_model(folder.parent / f"tokenizer-of-{folder.name}")
        folder.mkdir(parents=True)
        for name in TOKENIZER:
            (folder / name).write_bytes((source / name).read_bytes())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _decoder(kind, head).save_pretrained(folder)
    if dtype != torch.float32:
        _load(folder, dtype=dtype).save_pretrained(folder)
    return folder


def _decoder(kind: str, head: bool) -> Any:
    from transformers import GPT2Config, GPT2Model, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    if kind == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=300, n_positions=32, n_embd=16, n_layer=1, n_head=2))
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    return Qwen3ForCausalLM(config) if head else Qwen3Model(config)


def _load(folder: Path, dtype: torch.dtype = torch.float32, head: bool = False) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    return (AutoModelForCausalLM if head else AutoModel).from_pretrained(folder, dtype=dtype)


def make_adapter(base: Path, folder: Path, head: bool = False, seed: int = 1, **settings: Any) -> Path:
    """Save an adapter over ``base`` with random values; ``head``: around the language model."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft has advice for those who merge tied embeddings into language models
        torch.manual_seed(seed)
        model = get_peft_model(_load(base, head=head), LoraConfig(**({"r": 4, "lora_alpha": 6} | settings)))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_()
        model.save_pretrained(folder)
    return folder


def folded(
    base: Path, adapter: Path, dtype: torch.dtype = torch.float64, head: bool = False
) -> dict[str, torch.Tensor]:
    """What peft makes of it: the weights after ``merge_and_unload`` in ``dtype``, by name."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(_load(base, head=head), adapter).to(dtype)
    return dict(model.merge_and_unload().state_dict())


def edit_file(path: Path, **changes: Any) -> None:
    """Replace tensors of a safetensors file; None removes one. Dots in names are written as two underscores."""
    from safetensors.torch import save_file

    tensors = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
