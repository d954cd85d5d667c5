from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from boom_ray.config import ModelConfig
from boom_ray.model import attention
from boom_ray.model.attention import PADDED, UnsupportedAttention, packed_attention, padded_attention
from boom_ray.model.encoder import Encoder, load_encoder
from boom_ray.model.layout import Layout, set_layout
from boom_ray.model.texts import packed, padded
from tests.tiny_decoder import make_tiny_decoder
from tests.tiny_model import make_tiny_model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def fused(query, key, value, mask, **options):
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True, **options)
    return found.transpose(1, 2)


def hide_some(length: int) -> torch.Tensor:
    mask = torch.ones(2, 1, length, length, dtype=torch.bool).tril()
    mask[1, :, :, 0] = False  # as left padding would; row 0 of text 1 sees nothing but itself
    mask[1, :, 0, 0] = True
    return mask


@pytest.mark.parametrize("length", [5, attention.LONG_FLOAT32])
@pytest.mark.parametrize("masked", [False, True])
def test_padded_attention_and_its_gradients_equal_torchs(length, masked):
    module = torch.nn.Module()
    tensors = [draw(2, 4, length, 8), draw(2, 2, length, 8, seed=1), draw(2, 2, length, 8, seed=2)]
    mask = hide_some(length) if masked else None
    ours, weights = padded_attention(module, *tensors, mask, scaling=0.3)
    theirs = fused(*tensors, mask, scale=0.3)
    assert weights is None
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    slope = draw(*ours.shape, seed=3)
    for one, other in zip(
        torch.autograd.grad(ours, tensors, slope), torch.autograd.grad(theirs, tensors, slope), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_soft_caps_are_applied_and_what_is_unknown_is_refused(monkeypatch):
    module, tensors = torch.nn.Module(), [draw(1, 1, 4, 8, seed=seed) for seed in range(3)]
    scores = torch.tanh(tensors[0] @ tensors[1].mT * 0.5 / 2.0) * 2.0
    expected = (scores.softmax(-1) @ tensors[2]).transpose(1, 2)
    torch.testing.assert_close(padded_attention(module, *tensors, None, scaling=0.5, softcap=2.0)[0], expected)
    with pytest.raises(UnsupportedAttention, match="no s_aux"):
        padded_attention(module, *tensors, None, s_aux=torch.ones(1))
    with pytest.raises(UnsupportedAttention, match="no soft cap and no dropout"):
        packed_attention(module, *tensors, None, softcap=2.0)
    offsets = {"cu_seq_lens_q": torch.tensor([0, 4]), "max_length_q": 4}
    monkeypatch.setattr(attention, "_kernel", None)
    with pytest.raises(UnsupportedAttention, match="use_kernel was not called"):
        packed_attention(module, *tensors, None, **offsets)
    attention.use_kernel(plain_kernel)
    with pytest.raises(UnsupportedAttention, match="no soft cap and no dropout"):
        packed_attention(module, *tensors, None, softcap=2.0, **offsets)


def plain_kernel(query, key, value, offsets, longest, scale, window):
    """What a kernel for texts without padding must compute, text by text."""
    found = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        q, k, v = (one[start:stop].transpose(0, 1) for one in (query, key, value))
        place = torch.arange(stop - start)
        behind, ahead = place[:, None] - place[None, :], place[None, :] - place[:, None]
        mask = torch.ones(stop - start, stop - start, dtype=torch.bool)
        if window[0] >= 0:
            mask &= behind <= window[0]
        if window[1] >= 0:
            mask &= ahead <= window[1]
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)
        found.append(out.transpose(0, 1))
    return torch.cat(found)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("attention")
    bert = make_tiny_model(root / "bert", max_length=256)
    return {
        "bert": bert,
        "qwen": make_tiny_decoder(root / "qwen", bert),
        "window": make_tiny_decoder(root / "window", bert, sliding_window=16),
        **_others(root),
    }


def _others(root) -> dict:
    """Random models of other architectures: positions from 2 on, windows to both sides, no attention interface."""
    from transformers import ModernBertConfig, ModernBertModel, MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

    shared = {"vocab_size": 200, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    shared |= {"intermediate_size": 64, "pad_token_id": 1, "initializer_range": 0.5}
    torch.manual_seed(0)
    made = {
        "roberta": RobertaModel(RobertaConfig(**shared, max_position_embeddings=258)),
        "modernbert": ModernBertModel(
            ModernBertConfig(**{**shared, "initializer_range": 0.2}, local_attention=16, global_attn_every_n_layers=2)
        ),
        "mpnet": MPNetModel(MPNetConfig(**shared, max_position_embeddings=258)),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in made}


def load(folders, name: str) -> Encoder:
    return load_encoder(folders[name], ModelConfig(pooling="mean"), dropout=0.0).eval()


TEXTS = [np.array(ids, dtype=np.int32) for ids in ([5, 6, 7, 8, 9, 10], [11, 12], list(range(20, 120)))]


@pytest.mark.parametrize("name", ["bert", "qwen", "window", "roberta", "modernbert"])
def test_models_give_the_same_embeddings_padded_and_packed(folders, name, monkeypatch):
    encoder = load(folders, name)
    with torch.no_grad():
        expected = encoder(padded(TEXTS, encoder.pad_id))
    assert set_layout(encoder, "auto") is Layout.PADDED
    assert encoder.core.config._attn_implementation == PADDED
    with torch.no_grad():
        torch.testing.assert_close(encoder(padded(TEXTS, encoder.pad_id)), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(attention, "_kernel", plain_kernel)
    encoder.core.set_attn_implementation(attention.PACKED)
    with torch.no_grad():
        torch.testing.assert_close(encoder(packed(TEXTS)), expected, rtol=1e-4, atol=1e-5)
        alike = padded([TEXTS[2], TEXTS[2][::-1].copy()])
        assert alike.mask is None
        torch.testing.assert_close(encoder(alike)[:1], expected[2:], rtol=1e-4, atol=1e-5)


def test_a_model_without_the_interface_is_read_plainly(folders):
    encoder = load(folders, "mpnet")
    assert set_layout(encoder, "auto") is Layout.PLAIN
    assert set_layout(load(folders, "bert"), "plain") is Layout.PLAIN


def test_a_form_that_changes_embeddings_is_not_taken(folders, monkeypatch, caplog):
    encoder = load(folders, "bert")
    monkeypatch.setattr(attention, "padded_attention", lambda module, q, k, v, *_, **__: (v.transpose(1, 2), None))
    from transformers import AttentionInterface

    attention.register()
    AttentionInterface.register(PADDED, attention.padded_attention)
    caplog.set_level(logging.INFO)
    try:
        assert set_layout(encoder, "auto") is Layout.PLAIN
    finally:
        AttentionInterface.register(PADDED, padded_attention)
    assert "away from those of transformers' own attention" in caplog.text
    assert encoder.core.config._attn_implementation == "sdpa"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["bert", "qwen", "window", "roberta", "modernbert"])
def test_gpu_reads_texts_without_padding(folders, name):
    encoder = load(folders, name).cuda().bfloat16()
    assert set_layout(encoder, "auto") is Layout.PACKED


def test_kernels_are_called_as_they_want_to_be():
    calls = []

    def flash(*arguments, **named):
        calls.append(named)
        return arguments[0], "lse"

    def varlen(q, k, v, one, other, most, longest, *, scale=None, window_size=(-1, -1), enable_gqa=False):
        calls.append({"scale": scale, "window_size": window_size, "enable_gqa": enable_gqa})
        return q

    q, k = torch.zeros(4, 4, 8), torch.zeros(4, 2, 8)
    for window in ((-1, 0), (15, 0), (7, 7), (-1, -1)):
        attention._flash(flash)(q, k, k, torch.tensor([0, 4]), 4, 0.5, window)
    assert [(one["causal"], one["window_size"]) for one in calls] == [
        (True, (-1, -1)),
        (True, (15, -1)),
        (False, (7, 7)),
        (False, (-1, -1)),
    ]
    attention._torch(varlen)(q, k, k, torch.tensor([0, 4]), 4, 0.5, (-1, 0))
    attention._torch(varlen)(q, q, q, torch.tensor([0, 4]), 4, None, (-1, -1))
    assert calls[-2:] == [
        {"scale": 0.5, "window_size": (-1, 0), "enable_gqa": True},
        {"scale": None, "window_size": (-1, -1), "enable_gqa": False},
    ]
    with pytest.raises(UnsupportedAttention, match="no scale and window"):
        attention._torch(lambda query, key: query)


def test_a_kernel_that_refuses_dropout_is_not_taken_for_training(folders, monkeypatch):
    from boom_ray.model import layout

    monkeypatch.setattr(layout, "use_kernel", lambda: attention.use_kernel(plain_kernel))
    encoder = load_encoder(folders["bert"], ModelConfig(), dropout=0.1).train()
    attention.register()
    texts = layout._made_up(encoder)
    plain = layout._embed(encoder, Layout.PLAIN.batch(texts, encoder.pad_id), autocast=False)
    assert "no dropout" in layout._fault(encoder, Layout.PACKED, texts, plain, autocast=False)
    assert layout._fault(encoder.eval(), Layout.PACKED, texts, plain, autocast=False) is None
