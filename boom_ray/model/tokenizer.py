"""The tokenizer of a base model: loaded once in the driver, handed to workers as JSON, saved with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import transformer_dir
from boom_ray.model.pooling import pooling_mode


def load_tokenizer(folder: Path, config: ModelConfig) -> Any:
    """The fast tokenizer of a model folder, adding the end-of-sequence token where the configuration wants it.

    Raises:
        ModelError: the tokenizer has no fast form, or no end-of-sequence token although one is wanted.
    """
    from transformers import AutoTokenizer

    inner = transformer_dir(folder)
    try:
        # Said, not left to a default: a model folder never runs code of its own.
        tokenizer = AutoTokenizer.from_pretrained(inner, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"The tokenizer in {inner} cannot be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer in {inner} has no fast form (tokenizer.json); convert it with transformers.")
    wants_eos = pooling_mode(folder, config) == "lasttoken" if config.append_eos is None else config.append_eos
    if wants_eos:
        _append_eos(tokenizer, inner)
    return tokenizer


def tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer as the ``tokenizers`` library reads it, without padding and truncation."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())


def _append_eos(tokenizer: Any, inner: Path) -> None:
    """Make the tokenizer end every text with its end-of-sequence token, unless it ends with a special token already."""
    from tokenizers.processors import Sequence, TemplateProcessing

    if tokenizer("a").input_ids[-1] in tokenizer.all_special_ids:
        return
    token, number = tokenizer.eos_token, tokenizer.eos_token_id
    if number is None:
        raise ModelError(f"The tokenizer in {inner} has no end-of-sequence token; set model.append_eos=false.")
    ending = TemplateProcessing(single=f"$A:0 {token}:0", special_tokens=[(token, number)])
    backend = tokenizer.backend_tokenizer
    backend.post_processor = Sequence([backend.post_processor, ending]) if backend.post_processor else ending
