"""How token states become one vector per text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import modules, read_json
from boom_ray.model.texts import TextBatch

MODES = ("cls", "mean", "lasttoken")
# Keys of folders written before sentence-transformers 6, which now stores one "pooling_mode".
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


def pooling_mode(folder: Path, config: ModelConfig) -> str:
    """The configured pooling, else the folder's, else mean.

    Raises:
        ModelError: the folder pools in a way that is not supported, or concatenates several.
    """
    if config.pooling is not None:
        return config.pooling
    place = next((module.path for module in modules(folder) if module.kind == "Pooling"), None)
    if place is None:
        return "mean"
    settings: dict[str, Any] = read_json(place / "config.json")
    stated = settings.get("pooling_mode")
    found = [mode for key, mode in _OLD_KEYS.items() if settings.get(key)]
    if isinstance(stated, str):
        found = [stated]
    elif isinstance(stated, list):
        found = [str(mode) for mode in stated]
    if len(found) != 1 or found[0] not in MODES:
        raise ModelError(f"{place / 'config.json'} pools by {found or 'nothing known'}; supported: {', '.join(MODES)}.")
    return found[0]


def pool(states: torch.Tensor, texts: TextBatch, mode: str) -> torch.Tensor:
    """One vector per text.

    Args:
        states: (n, t, d) or, packed, (1, T, d) last hidden states.
        texts: what they are states of.
        mode: ``cls`` (first token), ``mean`` (of all tokens) or ``lasttoken``.

    Returns:
        (n, d) in float32; sums run in float32 whatever the states' type.
    """
    if texts.offsets is not None:
        return _pool_packed(states[0], texts.offsets, mode)
    if texts.mask is None:
        whole = {
            "mean": lambda: states.float().mean(1),
            "cls": lambda: states[:, 0],
            "lasttoken": lambda: states[:, -1],
        }
        return whole[mode]().float()
    return pool_masked(states, texts.mask, mode)


def pool_masked(states: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """One vector per text from (n, t, d) states and an (n, t) mask with 0 for padding on either side; see `pool`."""
    rows = torch.arange(len(states), device=states.device)
    if mode == "mean":
        weights = mask.unsqueeze(-1).to(torch.float32)
        return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    if mode == "cls":
        return states[rows, mask.to(torch.int64).argmax(1)].float()
    return states[rows, (places * mask).argmax(1)].float()


def _pool_packed(states: torch.Tensor, offsets: torch.Tensor, mode: str) -> torch.Tensor:
    """The same from (T, d) states of texts one after the other."""
    if mode == "mean":
        return torch.segment_reduce(states.float(), "mean", offsets=offsets.long(), axis=0)
    places = offsets[:-1] if mode == "cls" else offsets[1:] - 1
    return states[places.long()].float()
