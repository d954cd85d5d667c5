"""mergekit's in-memory merge of one tensor: what our methods are held against where it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch


def mergekit(
    method: str,
    tensors: Sequence[torch.Tensor],
    base: torch.Tensor | None = None,
    weights: Sequence[float] | None = None,
    **parameters: Any,
) -> torch.Tensor:
    """Merged tensor of mergekit 0.1.5; parameters have its names. Skips the test where it is not installed."""
    api = pytest.importorskip("mergekit.merge_methods.api")
    if weights is not None:
        parameters["weight"] = list(weights)
    inputs = [tensor.clone() for tensor in ([base] if base is not None else []) + list(tensors)]
    result: torch.Tensor = api.merge_tensors(
        inputs, method, parameters=parameters, base_index=None if base is None else 0, dtype=inputs[0].dtype
    )
    return result
