"""How token states become one vector per text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.folder import modules, read_json

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


def pool(states: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """One vector per text.

    Args:
        states: (n, t, d) last hidden states.
        mask: (n, t) 1 for tokens, 0 for padding, on either side.
        mode: ``cls`` (first token), ``mean`` (of all tokens) or ``lasttoken``.

    Returns:
        (n, d) in float32; sums run in float32 whatever the states' type.
    """
    rows = torch.arange(len(states), device=states.device)
    if mode == "mean":
        weights = mask.unsqueeze(-1).to(torch.float32)
        return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    if mode == "cls":
        return states[rows, mask.to(torch.int64).argmax(1)].float()
    return states[rows, (places * mask).argmax(1)].float()
