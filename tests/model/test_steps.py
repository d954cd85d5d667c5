"""One step: direct, cached and plain gradients; every worker's part of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import Batch, BatchReader
from boom_ray.artifacts.plan import Step
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.config import LoraConfig, ModelConfig
from boom_ray.hashing import stream_key
from boom_ray.model.encoder import Encoder, load_encoder
from boom_ray.model.layout import Layout, set_layout
from boom_ray.model.losses.policy import Facts, Matryoshka, Policy, step_loss
from boom_ray.model.steps import Hooks, StepSettings, backward, bytes_per_token, embed, prepare
from boom_ray.model.texts import padded
from tests.tiny_decoder import make_tiny_decoder
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_tokens

POLICY = Policy("infonce", 0.1, True, ("query_to_passage",), "joint", ("positives", "duplicates", "labels"), None, 1, 0)
WIDTHS = Matryoshka((32, 8), (1.0, 0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("steps")
    bert = make_tiny_model(path / "bert")
    make_tiny_decoder(path / "qwen", bert)
    write_tokens(path / "a.arrow", "a", 40)
    return path


def load(folder: Path, name: str, dropout: float = 0.0, **model) -> Encoder:
    torch.manual_seed(0)
    config = ModelConfig(pooling="mean" if name == "bert" else "lasttoken", **model)
    return load_encoder(folder / name, config, dropout=dropout).train()


def read(folder: Path, rank: int = 0, workers: int = 1, rows: int = 11) -> Batch:
    reader = BatchReader({"a": TokenDataset([folder / "a.arrow"])}, 2, 3, rank, workers)
    return reader.read(Step("a", 0, np.arange(rows)))


def gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in encoder.trainable().items():
        if parameter.grad is not None:
            found[name], parameter.grad = parameter.grad, None
    return found


def settings(encoder: Encoder, **changes) -> StepSettings:
    return StepSettings(pad_id=encoder.pad_id, **{"micro_batch_tokens": 64, **changes})


def seeding(piece: int) -> None:
    torch.manual_seed(stream_key("t", piece) >> 1)


@pytest.mark.parametrize("name", ["bert", "qwen"])
@pytest.mark.parametrize("widths", [None, WIDTHS])
def test_gradients_equal_one_plain_forward_of_everything(folder, name, widths):
    encoder, batch = load(folder, name), read(folder)
    how = settings(encoder)
    work = prepare(batch, how)
    assert len(work.pieces) > 2
    loss = backward(encoder, work, POLICY, how, widths)
    ours = gradients(encoder)
    vectors = encoder(padded(batch.texts, encoder.pad_id))[batch.index]
    plain = step_loss(vectors, Facts.of(batch), POLICY, widths)
    plain.backward()
    assert float(loss) == pytest.approx(plain.item(), rel=1e-5)
    theirs = gradients(encoder)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 1, 100, 150])
@pytest.mark.parametrize(
    ("dropout", "lora", "checkpointing"), [(0.0, None, False), (0.2, None, False), (0.2, LoraConfig(rank=2), True)]
)
def test_cached_gradients_are_those_of_the_direct_way_bit_for_bit(folder, kept, dropout, lora, checkpointing):
    encoder = load(folder, "bert", dropout, lora=lora, gradient_checkpointing=checkpointing)
    found = []
    for tokens in (10**9, kept):
        how = settings(encoder, kept_tokens=tokens)
        work = prepare(read(folder), how)
        assert work.kept == (len(work.pieces) if tokens > 10**6 else np.searchsorted(sizes(work), kept, "right"))
        loss = backward(encoder, work, POLICY, how, WIDTHS, Hooks(seed=seeding if dropout else None))
        found.append((loss, gradients(encoder)))
    (direct_loss, direct), (cached_loss, cached) = found
    assert torch.equal(direct_loss, cached_loss)
    assert direct.keys() == cached.keys()
    for name, gradient in direct.items():
        assert torch.equal(gradient, cached[name]), name


def sizes(work) -> np.ndarray:
    return np.cumsum([piece.slots for piece in work.pieces])


def test_dropout_differs_between_pieces_and_steps(folder):
    encoder = load(folder, "bert", 0.5)
    how = settings(encoder)
    work = prepare(read(folder), how)
    seeds = []
    backward(encoder, work, POLICY, how, None, Hooks(seed=seeds.append))
    assert seeds == list(range(len(work.pieces)))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_parts_add_up_to_the_whole(folder, workers):
    """Uneven parts: 11 queries on 2 and 4 workers."""
    encoder = load(folder, "bert")
    how = settings(encoder)
    backward(encoder, prepare(read(folder), how), POLICY, how)
    whole = gradients(encoder)
    parts = [read(folder, rank, workers) for rank in range(workers)]
    everything = torch.cat([embed(encoder, part.texts, how)[part.index] for part in parts])
    total: dict[str, torch.Tensor] = {}
    start = 0
    for part in parts:
        own = slice(start, start + len(part.index))
        start = own.stop
        backward(encoder, prepare(part, how), POLICY, how, None, Hooks(gather=lambda _: everything, own=own))
        for name, gradient in gradients(encoder).items():
            total[name] = total.get(name, 0) + gradient
    for name, gradient in whole.items():
        torch.testing.assert_close(total[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_scaled_step_has_scaled_gradients(folder):
    encoder = load(folder, "bert")
    how = settings(encoder)
    work = prepare(read(folder), how)
    backward(encoder, work, POLICY, how)
    one = gradients(encoder)
    backward(encoder, work, POLICY, how, scale=0.5)
    for name, gradient in gradients(encoder).items():
        torch.testing.assert_close(gradient, one[name] / 2)


def test_embeddings_come_back_in_the_order_of_their_texts(folder):
    encoder = load(folder, "bert").eval()
    texts = read(folder).texts
    found = embed(encoder, texts, settings(encoder))
    with torch.no_grad():
        alone = torch.cat([encoder(padded([text], encoder.pad_id)) for text in texts])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_the_last_hook_is_called_once_before_the_last_backward_pass(folder):
    encoder = load(folder, "bert")
    how = settings(encoder)
    work = prepare(read(folder), how)
    done: list[str] = []
    encoder.transformer.embeddings.LayerNorm.weight.register_post_accumulate_grad_hook(lambda _: done.append("piece"))
    backward(encoder, work, POLICY, how, None, Hooks(last=lambda: done.append("last")))
    assert done == [*["piece"] * (len(work.pieces) - 1), "last", "piece"]


def test_kept_bytes_count_what_autograd_keeps_once(folder):
    """Of one linear layer's input, twice used, and nothing of the weights."""
    encoder = load(folder, "bert")
    set_layout(encoder, "padded")
    few = bytes_per_token(encoder, replace(settings(encoder), layout=Layout.PADDED), 16)
    many = bytes_per_token(encoder, replace(settings(encoder), layout=Layout.PADDED), 64)
    hidden, layers = 32, 2
    assert 10 * layers * hidden * 4 < few < 40 * layers * hidden * 4
    assert few < many < 3 * few  # scores of attention grow with the square
    assert not gradients(encoder)
