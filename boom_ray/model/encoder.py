"""The trainable encoder: a transformer, pooling and normalisation; loaded from and saved to model folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import modules, read_json, transformer_dir, write_json, write_modules
from boom_ray.model.pooling import pool, pooling_mode

TRAINABLE_MODULES = {"Transformer", "Pooling", "Normalize"}


class Encoder(nn.Module):
    """Token ids to embeddings.

    Attributes:
        transformer: the transformers model, or peft's around it.
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        normalize: whether embeddings have length 1.
        dimension: width of the embeddings.
        pad_id: token id that fills shorter texts.
    """

    def __init__(self, transformer: nn.Module, pooling: str, normalize: bool) -> None:
        """Wrap a loaded transformer."""
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.normalize = normalize
        # Some architectures count positions by where the padding token is, so padding must be that very token.
        self.dimension = int(transformer.config.hidden_size)
        self.pad_id = int(getattr(transformer.config, "pad_token_id", None) or 0)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed texts.

        Args:
            input_ids: (n, t) int64.
            attention_mask: (n, t) 1 for tokens, 0 for padding.

        Returns:
            (n, d) float32.
        """
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = pool(states, attention_mask, self.pooling)
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that receive gradients, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


def load_encoder(folder: Path, config: ModelConfig, dropout: float | None = None, seed: int = 0) -> Encoder:
    """Load a base in float32, with LoRA adapters if configured.

    Args:
        folder: model folder, see `boom_ray.model.folder.resolve_base`.
        config: pooling, normalisation, adapters.
        dropout: probability that replaces every dropout of the base; None leaves them.
        seed: of the adapters' first weights, so that every worker and every run starts with the same.

    Raises:
        ModelError: the weights lack tensors the architecture needs, or the folder has modules that cannot be trained.
    """
    unknown = [module.kind for module in modules(folder) if module.kind not in TRAINABLE_MODULES]
    if unknown:
        raise ModelError(f"{folder} has a {unknown[0]} module; only {sorted(TRAINABLE_MODULES)} can be trained.")
    transformer = _load_transformer(transformer_dir(folder))
    if dropout is not None:
        for module in transformer.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            elif isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = dropout
    if config.gradient_checkpointing:
        transformer.gradient_checkpointing_enable()
    if config.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = _with_lora(transformer, config)
    return Encoder(transformer, pooling_mode(folder, config), config.normalize)


def _load_transformer(inner: Path) -> nn.Module:
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModel.from_pretrained(
            inner,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,  # a model folder never runs code of its own
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"The model in {inner} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing and all("pooler" in name for name in missing):
        model.pooler = None  # BERT's pooler is used by no embedding; random weights must not enter the product
    elif missing:
        raise ModelError(f"The weights in {inner} lack {len(missing)} tensors of the architecture, e.g. {missing[0]}.")
    for name, parameter in model.named_parameters():
        if "pooler" in name:
            parameter.requires_grad_(False)
    return cast(nn.Module, model)


def _with_lora(transformer: nn.Module, config: ModelConfig) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    if config.lora is None:
        return transformer
    targets = config.lora.targets
    if config.gradient_checkpointing:
        transformer.enable_input_require_grads()  # type: ignore[operator]  # frozen embeddings would cut the graph
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # peft takes floats, its annotation says int
        lora_dropout=config.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    try:
        return cast(nn.Module, get_peft_model(transformer, lora))  # type: ignore[arg-type]  # peft wants PreTrainedModel
    except ValueError as error:
        raise ModelError(f"model.lora.targets does not fit this model: {error}") from error


def save_model(encoder: Encoder, tokenizer: Any, folder: Path, prompts: Mapping[str, str], max_tokens: int) -> None:
    """Write a complete sentence-transformers folder; adapters are folded into the weights first.

    Args:
        encoder: what was trained.
        tokenizer: see `boom_ray.model.tokenizer.load_tokenizer`.
        folder: where to.
        prompts: name to prefix, e.g. ``query``, ``document`` and every dataset's name.
        max_tokens: longest text the saved model reads; tokens.
    """
    transformer: Any = encoder.transformer
    if hasattr(transformer, "merge_and_unload"):
        transformer = transformer.merge_and_unload()
    transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config["dtype"] = "float32"
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
    write_modules(folder, encoder.dimension, encoder.pooling, encoder.normalize, prompts, max_tokens)
