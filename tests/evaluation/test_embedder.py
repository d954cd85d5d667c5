"""Tokens of texts that are embedded again, with other weights."""

from __future__ import annotations

import numpy as np
import torch

from boom_ray.evaluation.embedder import TEXT_BYTES, EngineEmbedder, KeptTokens
from boom_ray.evaluation.encoder import load_model
from boom_ray.evaluation.scores import Manner, ModelRef

TEXTS = ["the cat", "a dog on the river", "the cat", "\ud800 lone", ""]


def test_texts_are_tokenised_once_however_often_the_weights_change(tiny: ModelRef) -> None:
    embedder, plain = (EngineEmbedder(load_model(tiny.path, "float32")) for _ in range(2))
    embedder.kept, calls = KeptTokens(), []
    tokenize = embedder._tokenize
    embedder._tokenize = lambda texts: calls.extend(texts) or tokenize(texts)  # type: ignore[method-assign,func-returns-value]
    texts = [text for text in TEXTS if text.isprintable()]
    before = embedder.embed(texts, Manner("ask: "))
    assert (before == plain.embed(texts, Manner("ask: "))).all()
    for one in (embedder, plain):
        with torch.no_grad():
            next(one.encoder.parameters()).mul_(1.5)
    after = embedder.embed([*texts, "more"], Manner("ask: "))
    assert (after == plain.embed([*texts, "more"], Manner("ask: "))).all() and (after[:3] != before[:3]).any()
    embedder.embed(texts, Manner("find: "))
    asked = list(dict.fromkeys(texts))
    assert calls == [*(f"ask: {text}" for text in [*asked, "more"]), *(f"find: {text}" for text in asked)]


def test_memory_of_tokens_is_bounded_and_what_is_kept_stays() -> None:
    calls: list[str] = []

    def tokenize(texts: list[str]) -> list[np.ndarray]:
        calls.extend(texts)
        return [np.full(len(text), 7, dtype=np.int32) for text in texts]

    known = KeptTokens(most=2 * TEXT_BYTES + 4 * 5)
    for _ in range(2):
        found = known.look_up(["aa", "bbb", "c", "aa"], tokenize)
        assert [len(tokens) for tokens in found] == [2, 3, 1, 2]
    assert calls == ["aa", "bbb", "c", "c"] and known.held == known.most
    assert [len(tokens) for tokens in known.look_up(TEXTS, tokenize)] == list(map(len, TEXTS))
