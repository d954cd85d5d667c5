"""In which form an encoder reads its texts: without padding, padded, or as transformers would by itself.

A form is taken only if this very model gives the same embeddings in it: a few made-up texts are embedded in both, and a
change of one text must not move another. So an architecture that ignores where texts begin, shifts positions, or asks
its attention for what a kernel lacks is read in the next form, and the reason is logged.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence

import numpy as np
import torch

from boom_ray.artifacts.tokens import I32
from boom_ray.model.attention import PACKED, PADDED, UnsupportedAttention, register, use_kernel
from boom_ray.model.encoder import Encoder
from boom_ray.model.texts import TextBatch, packed, padded

log = logging.getLogger(__name__)
LENGTHS = (200, 33, 7, 2)  # tokens of the made-up texts; 200 is longer than the windows of ModernBERT's layers
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


class Layout(enum.Enum):
    """How texts stand in a forward pass."""

    PACKED = "packed"
    PADDED = "padded"
    PLAIN = "plain"

    def batch(self, texts: Sequence[I32], pad_id: int) -> TextBatch:
        """Texts in this form; texts of one length are a rectangle without padding in any."""
        alike = len({len(text) for text in texts}) == 1
        return packed(texts) if self is Layout.PACKED and not alike else padded(texts, pad_id)


def set_layout(encoder: Encoder, wanted: str, autocast: bool = False) -> Layout:
    """Choose the form and set the model's attention accordingly.

    Args:
        encoder: on its device and in its type.
        wanted: ``auto``: packed on GPUs, else padded; ``padded``; ``plain``.
        autocast: try with float32 weights run in bfloat16.

    Returns:
        The form to make batches in.
    """
    if wanted == "plain":
        return Layout.PLAIN
    register()
    texts = _made_up(encoder)
    own = str(encoder.core.config._attn_implementation)
    reference = _embed(encoder, Layout.PLAIN.batch(texts, encoder.pad_id), autocast)
    forms = [Layout.PACKED] if wanted == "auto" and encoder.device.type == "cuda" else []
    for form in [*forms, Layout.PADDED]:
        fault = _fault(encoder, form, texts, reference, autocast)
        if fault is None:
            # cuDNN's attention is the fastest for texts of one length, and plans a second for every other shape
            torch.backends.cuda.enable_cudnn_sdp(form is Layout.PACKED)
            return form
        log.info("Texts are not read in the form %s: %s.", form.value, fault)
    _set_attention(encoder, own)
    return Layout.PLAIN


def _fault(encoder: Encoder, form: Layout, texts: list[I32], reference: torch.Tensor, autocast: bool) -> str | None:
    """Why a form does not do, None if it does; the model's attention is set to it."""
    name = PACKED if form is Layout.PACKED else PADDED
    try:
        if form is Layout.PACKED:
            use_kernel()
        if not _set_attention(encoder, name):
            return "the model does not take another attention"
        if encoder.training:  # with dropout, which some kernels refuse
            with torch.no_grad(), torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=autocast):
                encoder(form.batch(texts, encoder.pad_id).to(encoder.device))
        found = _embed(encoder, form.batch(texts, encoder.pad_id), autocast)
        alike = _embed(encoder, form.batch([texts[0], texts[0][::-1].copy()], encoder.pad_id), autocast)[:1]
        changed = _embed(encoder, form.batch([*texts[:-1], texts[-1][::-1].copy()], encoder.pad_id), autocast)
    except (UnsupportedAttention, RuntimeError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    kind = torch.bfloat16 if autocast else next(encoder.parameters()).dtype
    for what, vectors in (("", found), (" of texts of one length", alike)):
        distance = float((vectors - reference[: len(vectors)]).norm() / reference[: len(vectors)].norm())
        if not distance < TOLERANCE.get(kind, 1e-3):
            return f"embeddings{what} are {distance:.1e} away from those of transformers' own attention"
    if not torch.equal(found[:-1], changed[:-1]):
        return "a text's embedding depends on the text behind it"
    return None


def _set_attention(encoder: Encoder, name: str) -> bool:
    core = encoder.core
    if not hasattr(core, "set_attn_implementation"):
        return False
    core.set_attn_implementation(name)
    return bool(core.config._attn_implementation == name)


def _made_up(encoder: Encoder) -> list[I32]:
    """Texts of random tokens, none of them the padding token."""
    config = encoder.core.config
    room = encoder.longest or max(LENGTHS)
    draw = np.random.default_rng(0)
    texts = []
    for length in LENGTHS:
        tokens = draw.integers(0, int(config.vocab_size), min(length, room)).astype(np.int32)
        tokens[tokens == encoder.pad_id] = (encoder.pad_id + 1) % int(config.vocab_size)
        texts.append(tokens)
    return texts


def _embed(encoder: Encoder, texts: TextBatch, autocast: bool) -> torch.Tensor:
    """(n, d) on the CPU, without dropout and gradients."""
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=autocast):
            return encoder(texts.to(encoder.device)).cpu()
    finally:
        encoder.train(training)
