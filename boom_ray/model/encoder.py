"""The trainable encoder: a transformer, pooling, linear layers and normalisation; from and to model folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.adapters import block_list, fold, freeze, with_adapters
from boom_ray.model.dense import Dense, load_dense, new_dense, save_dense
from boom_ray.model.folder import modules, read_json, transformer_dir, write_json, write_modules
from boom_ray.model.pooling import pool, pooling_mode
from boom_ray.model.texts import TextBatch

TRAINABLE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize"}
PREFIX = "transformer."


class Encoder(nn.Module):
    """Token ids to embeddings.

    Attributes:
        transformer: the transformers model, or peft's around it.
        dense: linear layers after pooling.
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        normalize: whether embeddings have length 1.
        dimension: width of the embeddings.
        pad_id: token id that fills shorter texts.
        first_position: number of a text's first position, where the model is told positions.
    """

    def __init__(self, transformer: nn.Module, pooling: str, normalize: bool, dense: list[Dense] | None = None) -> None:
        """Wrap a loaded transformer."""
        super().__init__()
        self.transformer = transformer
        self.dense = nn.ModuleList(dense or [])
        self.pooling = pooling
        self.normalize = normalize
        config: Any = transformer.config
        self.dimension = dense[-1].linear.out_features if dense else int(config.hidden_size)
        # Some architectures count positions by where the padding token is, so padding must be that very token.
        self.pad_id = int(getattr(config, "pad_token_id", None) or 0)
        self.first_position = _first_position(transformer)

    def forward(self, texts: TextBatch) -> torch.Tensor:
        """Embed texts.

        Returns:
            (n, d) float32.
        """
        vectors = pool(self.states(texts), texts, self.pooling)
        for layer in self.dense:
            vectors = layer(vectors)
        return nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def states(self, texts: TextBatch) -> torch.Tensor:
        """Last hidden states, (n, t, h) or, packed, (1, T, h)."""
        options: dict[str, Any] = {"attention_mask": texts.mask}
        if texts.offsets is not None and texts.positions is not None:
            longest = -(-texts.longest // 128) * 128  # few different numbers, each of which is compiled for
            options = {
                "position_ids": texts.positions + self.first_position,
                "cu_seq_lens_q": texts.offsets,
                "cu_seq_lens_k": texts.offsets,
                "max_length_q": longest,
                "max_length_k": longest,
            }
        return cast(torch.Tensor, self.transformer(input_ids=texts.ids, **options).last_hidden_state)

    @property
    def core(self) -> Any:
        """The transformers model itself, without peft's wrapper."""
        inner: Any = getattr(self.transformer, "get_base_model", None)
        return self.transformer if inner is None else inner()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def longest(self) -> int | None:
        """Longest text that the table of positions has room for; tokens; None if the model knows no limit."""
        room = getattr(self.core.config, "max_position_embeddings", None)
        return int(room) - self.first_position if room else None

    @property
    def table_room(self) -> int | None:
        """The same, of a table that is looked up; None where positions are computed, which have no end."""
        has_table = any(
            isinstance(getattr(module, "position_embeddings", None), nn.Embedding) for module in self.core.modules()
        )
        return self.longest if has_table else None

    def check_length(self, longest: int) -> None:
        """Check that the model can read texts of so many tokens; positions that are computed have no end.

        Raises:
            ModelError: its table of positions is shorter.
        """
        room = self.table_room
        if room is not None and room < longest:
            raise ModelError(
                f"The base knows positions of {room} tokens, and texts may have {longest}. Set "
                f"corpus.max_query_tokens and corpus.max_passage_tokens to {room} at most."
            )

    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks from first to last, see `block_list`."""
        return block_list(self.core)[1]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that receive gradients, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


def load_encoder(folder: Path, config: ModelConfig, dropout: float | None = None, seed: int = 0) -> Encoder:
    """Load a base in float32, with new linear layers and adapters if configured.

    Args:
        folder: model folder, see `boom_ray.model.folder.resolve_base`.
        config: pooling, linear layers, normalisation, adapters, what is frozen.
        dropout: probability that replaces every dropout of the base; None leaves them.
        seed: of the first weights of adapters and new layers, so that every worker and every run starts alike.

    Raises:
        ModelError: the weights lack tensors the architecture needs, the folder has modules that cannot be trained, or
            targets or patterns do not fit it.
    """
    found = modules(folder)
    unknown = [module.kind for module in found if module.kind not in TRAINABLE_MODULES]
    if unknown:
        raise ModelError(f"{folder} has a {unknown[0]} module; only {sorted(TRAINABLE_MODULES)} can be trained.")
    transformer = _load_transformer(transformer_dir(folder))
    if dropout is not None:
        _set_dropout(transformer, dropout)
    if config.gradient_checkpointing:
        _checkpoint(transformer, folder)
    dense = [load_dense(module.path) for module in found if module.kind == "Dense"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in config.dense:
            width = dense[-1].linear.out_features if dense else int(cast(Any, transformer).config.hidden_size)
            dense.append(new_dense(layer, width))
        if config.lora is not None:
            transformer = with_adapters(transformer, config.lora)
    encoder = Encoder(transformer, pooling_mode(folder, config), config.normalize, dense)
    freeze(((name.removeprefix(PREFIX), one) for name, one in encoder.named_parameters()), config.frozen)
    if not encoder.trainable():
        raise ModelError("model.frozen leaves nothing to train; take out a pattern.")
    return encoder


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
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # keys and values of decoders, which only generation uses again
    return cast(nn.Module, model)


def _set_dropout(transformer: nn.Module, dropout: float) -> None:
    for module in transformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            cast(Any, module).attention_dropout = dropout


def _checkpoint(transformer: nn.Module, folder: Path) -> None:
    try:
        cast(Any, transformer).gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"{folder} is a {type(transformer).__name__}, which has no gradient checkpointing: set "
            f"model.gradient_checkpointing=false; training.kept_tokens bounds memory, too."
        ) from error


def _first_position(transformer: nn.Module) -> int:
    """0, but in models like RoBERTa, whose table of positions starts behind the padding token's number."""
    for module in transformer.modules():
        if isinstance(table := getattr(module, "position_embeddings", None), nn.Embedding):
            own = getattr(module, "padding_idx", None)
            behind = own if isinstance(own, int) else table.padding_idx
            return 0 if behind is None else behind + 1
    return 0


def save_model(encoder: Encoder, tokenizer: Any, folder: Path, prompts: Mapping[str, str], max_tokens: int) -> None:
    """Write a complete sentence-transformers folder; adapters are folded into the weights, and gone afterwards.

    Args:
        encoder: what was trained, in float32.
        tokenizer: see `boom_ray.model.tokenizer.load_tokenizer`.
        folder: where to.
        prompts: name to prefix, e.g. ``query``, ``document`` and every dataset's name.
        max_tokens: longest text the saved model reads; tokens.
    """
    encoder.transformer = fold(encoder.transformer)
    width = int(encoder.core.config.hidden_size)
    encoder.core.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config["dtype"] = "float32"
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
    places = write_modules(folder, width, encoder.pooling, encoder.normalize, prompts, max_tokens, len(encoder.dense))
    for layer, place in zip(encoder.dense, places, strict=True):
        save_dense(cast(Dense, layer), place)
