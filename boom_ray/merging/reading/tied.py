"""Tensors that a file holds twice: an output layer that is the input embedding under a second name.

transformers makes one of the two a view of the other when it loads a model whose config says
``tie_word_embeddings``, so the repetition is neither merged nor written; it only has to hold the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from boom_ray.errors import MergeError
from boom_ray.model.folder import read_json

if TYPE_CHECKING:
    from boom_ray.merging.reading.checkpoint import Checkpoint, TensorInfo

EMBEDDINGS = (
    "shared.weight",
    "embed_tokens.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "embed_in.weight",
)
"""How the names of token embeddings end; rows are tokens."""
REPEATED = {
    "lm_head.weight": EMBEDDINGS,
    "decoder.weight": EMBEDDINGS,  # cls.predictions.decoder.weight of BERT, lm_head.decoder.weight of RoBERTa
    "vocab_projector.weight": EMBEDDINGS,
    "generator_lm_head.weight": EMBEDDINGS,
    "encoder.embed_tokens.weight": ("shared.weight",),
    "decoder.embed_tokens.weight": ("shared.weight",),
    "cls.predictions.decoder.bias": ("cls.predictions.bias",),
    "lm_head.decoder.bias": ("lm_head.bias",),
}
"""How the names of repetitions end, and of what they repeat; from ``_tied_weights_keys`` in transformers 5.23."""
PIECE = 1 << 20
"""Elements compared at a time."""


def ends_with(name: str, ending: str) -> bool:
    """Whether a tensor's name ends with these parts."""
    return name == ending or name.endswith(f".{ending}")


def find_aliases(tensors: Mapping[str, TensorInfo], folder: Path) -> list[tuple[TensorInfo, TensorInfo]]:
    """Repetitions among a transformer's tensors, each with the tensor it repeats; none unless the config ties them.

    Args:
        tensors: by name.
        folder: where the transformer's ``config.json`` is.
    """
    wanted = {name: sources for name in tensors for ending, sources in REPEATED.items() if ends_with(name, ending)}
    if not wanted or not _ties(read_json(folder / "config.json")):
        return []
    found = []
    for name, sources in wanted.items():
        candidates = [
            other
            for ending in sources
            for key, other in tensors.items()
            if key not in wanted and ends_with(key, ending) and other.shape == tensors[name].shape
        ]
        if candidates:
            found.append((tensors[name], candidates[0]))
    return found


def _ties(config: Mapping[str, Any]) -> bool:
    """Whether the config ties embeddings; where it does not say, its class in transformers does."""
    for place in (config, config.get("text_config")):
        if isinstance(place, dict) and "tie_word_embeddings" in place:
            return bool(place["tie_word_embeddings"])
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    return kind in CONFIG_MAPPING and bool(getattr(CONFIG_MAPPING[kind](), "tie_word_embeddings", False))


def check_aliases(checkpoint: Checkpoint) -> None:
    """Check that every repetition holds the values of the tensor it repeats.

    Raises:
        MergeError: one does not.
    """
    for alias, source in checkpoint.aliases:
        size = PIECE * max(int(alias.dtype.itemsize), int(source.dtype.itemsize))
        buffers = [torch.empty(size, dtype=torch.uint8) for _ in range(2)]
        for start in range(0, source.numel, PIECE):
            span = (start, min(start + PIECE, source.numel))
            one, two = (
                checkpoint.read_stored(info, *span, buffer)
                for info, buffer in zip((alias, source), buffers, strict=True)
            )
            if one.dtype != two.dtype or not torch.equal(one.view(torch.uint8), two.view(torch.uint8)):
                raise MergeError(
                    f"{checkpoint.label}: {alias.key} and {source.key} hold different values in {source.path.parent}, "
                    f"and config.json ties them (tie_word_embeddings). Load the model with transformers and save it "
                    f"again, or set tie_word_embeddings to false there if they were trained apart."
                )
