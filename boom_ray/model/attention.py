"""Attention under transformers' attention interface: faster than its own where that is known.

- `PADDED`: on CPUs plain matrix products beat torch's fused attention for short texts, and in bfloat16 for all but very
  long ones, up to 9 times (docs/benchmarks.md); on GPUs it is torch's fused attention.
- `PACKED`: texts without padding, one after the other (flash-attn 3 or 2 where installed, else torch's own kernel).

Every model that follows transformers' attention interface gets them, encoders and decoders alike. What a kernel cannot
do (soft caps, sinks, dropout) it refuses, and the encoder falls back to the next form, see `boom_ray.model.layout`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

PADDED = "boom_padded"
PACKED = "boom_packed"
LONG_FLOAT32 = 256  # from this length on torch's fused kernel is faster on a CPU, tokens
LONG_BFLOAT16 = 1024  # from here on the scores of one text and head would take over 2 MiB
Answer = tuple[torch.Tensor, None]
Kernel = Callable[..., torch.Tensor]
"""(query (T, h, d), key and value (T, g, d), offsets (n+1,), longest, scale, (tokens behind, ahead; -1: all)) to
(T, h, d)."""
_kernel: Kernel | None = None  # looked up before a model is compiled: compilers cannot see through imports


class UnsupportedAttention(ValueError):  # noqa: N818  (caught and replaced by another form, never shown)
    """The kernel lacks something that the model asks for."""


@functools.cache
def register() -> None:
    """Make both forms known to transformers, by name; once per process."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(PADDED, padded_attention)
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PADDED, _padded_mask)  # PACKED needs none, and unknown names get none


def use_kernel(kernel: Kernel | None = None) -> None:
    """Let `packed_attention` compute with a kernel; None: the fastest installed.

    Raises:
        UnsupportedAttention: there is none.
    """
    global _kernel
    _kernel = find_kernel() if kernel is None else kernel


def _padded_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Transformers' mask of booleans (n, 1, t, t); None where every token sees every token."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def padded_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> Answer:
    """softmax(QKᵀ·scaling) V over padded texts (Vaswani et al. 2017, eq. 1).

    Args:
        module: the attention layer.
        query: (n, h, t, d).
        key: (n, g, t, d), g dividing h: each key serves h/g queries.
        value: (n, g, t, e).
        attention_mask: (n, 1, t, t) booleans, True where a token is seen; None: all are.
        dropout: of the weights, probability.
        scaling: None: 1/sqrt(d).
        softcap: scores s become softcap·tanh(s/softcap).
        kwargs: of other kernels.

    Returns:
        (n, t, h, e), contiguous, and None for the weights.

    Raises:
        UnsupportedAttention: the model asks for sinks or a bias of positions.
    """
    _refuse(kwargs, "s_aux", "position_bias")
    long = LONG_BFLOAT16 if query.dtype == torch.bfloat16 else LONG_FLOAT32
    if softcap is None and (query.device.type != "cpu" or query.shape[2] >= long):
        return _fused(module, query, key, value, attention_mask, dropout, scaling)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        with torch.no_grad():  # weights of hidden tokens are exactly 0, and so are the gradients of their scores
            scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = torch.nn.functional.dropout(torch.softmax(scores, -1), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _fused(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> Answer:
    grouped = query.shape[1] != key.shape[1]
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, dropout if module.training else 0.0, scale=scaling, enable_gqa=grouped
    )
    return found.transpose(1, 2).contiguous(), None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> Answer:
    """The same over texts without padding: one after the other, or a rectangle of texts of one length.

    Args:
        module: the attention layer; ``is_causal`` says whether it looks back only.
        query: (1, h, T, d); key and value (1, g, T, d). A rectangle: (n, h, t, d) and (n, g, t, d).
        key: see query.
        value: see query.
        attention_mask: not used.
        dropout: refused unless 0.
        scaling: None: 1/sqrt(d).
        is_causal: replaces the layer's own.
        sliding_window: tokens that a token sees; to both sides if the layer looks both ways.
        softcap: refused: torch's kernel has none.
        cu_seq_lens_q: (n+1,) int32, where texts begin and end; None for a rectangle.
        max_length_q: a length that no text exceeds; None for a rectangle.
        kwargs: of other kernels.

    Returns:
        (1, T, h, d) or (n, t, h, d), and None.

    Raises:
        UnsupportedAttention: see above, or texts were not given.
    """
    _refuse(kwargs, "s_aux", "position_bias")
    if softcap is not None or (dropout and module.training):
        raise UnsupportedAttention("no soft cap and no dropout without padding")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if cu_seq_lens_q is None or max_length_q is None:
        return _rectangle(query, key, value, scaling, causal, sliding_window)
    if _kernel is None:
        raise UnsupportedAttention("use_kernel was not called")
    side = -1 if sliding_window is None else sliding_window - 1
    query, key, value = (one.transpose(1, 2).squeeze(0) for one in (query, key, value))
    window = (side, 0 if causal else side)
    return _kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, window).unsqueeze(0), None


def _rectangle(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    causal: bool,
    sliding_window: int | None,
) -> Answer:
    mask, length = None, query.shape[2]
    if sliding_window is not None and length >= sliding_window:
        place = torch.arange(length, device=query.device)
        behind = place[:, None] - place[None, :]
        mask = (behind < sliding_window) & (behind > -sliding_window)
        mask, causal = (mask & (behind >= 0) if causal else mask), False
    grouped = query.shape[1] != key.shape[1]
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal and length > 1, scale=scaling, enable_gqa=grouped
    )
    return found.transpose(1, 2), None


def find_kernel() -> Kernel:
    """The fastest installed kernel for texts without padding.

    Raises:
        UnsupportedAttention: there is none.
    """
    for name in ("flash_attn_interface", "flash_attn"):  # versions 3 and 2
        try:
            return _flash(importlib.import_module(name).flash_attn_varlen_func)
        except (ImportError, AttributeError):
            continue
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise UnsupportedAttention("neither flash-attn nor torch 2.11 is installed") from error
    return _torch(varlen_attn)


def _flash(varlen: Any) -> Kernel:
    def run(q: Any, k: Any, v: Any, offsets: Any, longest: int, scale: Any, window: tuple[int, int]) -> torch.Tensor:
        causal = window[1] == 0
        sides = (window[0], -1) if causal else window
        found = varlen(
            *(q, k, v, offsets, offsets, longest, longest), softmax_scale=scale, causal=causal, window_size=sides
        )
        return found[0] if isinstance(found, tuple) else found

    return run


def _torch(varlen: Any) -> Kernel:
    known = inspect.signature(varlen).parameters
    if not {"scale", "window_size"} <= set(known):
        raise UnsupportedAttention("torch's kernel has no scale and window before torch 2.11")
    knows_groups = "enable_gqa" in known

    def run(q: Any, k: Any, v: Any, offsets: Any, longest: int, scale: Any, window: tuple[int, int]) -> torch.Tensor:
        grouped = {"enable_gqa": True} if knows_groups and q.shape[1] != k.shape[1] else {}
        found: torch.Tensor = varlen(
            q, k, v, offsets, offsets, longest, longest, scale=scale, window_size=window, **grouped
        )
        return found

    return run


def _refuse(kwargs: dict[str, Any], *names: str) -> None:
    for name in names:
        if kwargs.get(name) is not None:
            raise UnsupportedAttention(f"no {name}")
