from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from boom_ray.config import LoraConfig, ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.encoder import load_encoder, save_model
from boom_ray.model.folder import weights_fingerprint
from boom_ray.model.pooling import pool
from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json
from tests.tiny_model import make_tiny_model

TEXTS = ["sort a list", "the cat", "open the file and read all text of it", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, bert) -> Path:
    """A random Qwen3 decoder in the form of a plain transformers folder; the words of the tiny BERT."""
    folder = tmp_path_factory.mktemp("qwen") / "qwen"
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.5,
        max_position_embeddings=128,
    )
    Qwen3Model(config).save_pretrained(folder)
    source = AutoTokenizer.from_pretrained(bert).backend_tokenizer
    source.post_processor = None
    words = PreTrainedTokenizerFast(tokenizer_object=source, eos_token="[SEP]", pad_token="[PAD]")
    words.save_pretrained(folder)
    return folder


def embed(folder: Path, config: ModelConfig, texts: list[str]) -> tuple[np.ndarray, object, object]:
    encoder = load_encoder(folder, config, dropout=0.0).eval()
    tokenizer = load_tokenizer(folder, config)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = encoder(batch["input_ids"], batch["attention_mask"])
    return vectors.numpy(), encoder, tokenizer


def test_equals_sentence_transformers_on_the_base_and_after_saving(bert, tmp_path):
    ours, encoder, tokenizer = embed(bert, ModelConfig(), TEXTS)
    theirs = SentenceTransformer(str(bert), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    save_model(encoder, tokenizer, tmp_path, {"query": "find: "}, 77)
    saved = SentenceTransformer(str(tmp_path), device="cpu")
    assert saved.max_seq_length == 77
    assert saved.prompts["query"] == "find: "
    np.testing.assert_allclose(saved.encode(TEXTS), ours, atol=1e-6)
    np.testing.assert_allclose(
        saved.encode(TEXTS, prompt_name="query"),
        embed(bert, ModelConfig(), ["find: " + t for t in TEXTS])[0],
        atol=1e-5,
    )


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_every_pooling_survives_saving(bert, tmp_path, pooling):
    config = ModelConfig(pooling=pooling, normalize=False)
    ours, encoder, tokenizer = embed(bert, config, TEXTS)
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), ours, atol=1e-5)


def test_the_padding_side_does_not_matter():
    states = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    right = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    turned = states.clone()
    turned[0] = states[0].roll(1, 0)
    left = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    for mode in ("cls", "mean", "lasttoken"):
        torch.testing.assert_close(pool(states, right, mode), pool(turned, left, mode))
    torch.testing.assert_close(pool(states, right, "lasttoken")[0], states[0, 2])
    torch.testing.assert_close(pool(states, right, "cls")[1], states[1, 0])


def test_a_decoder_ends_texts_with_eos_and_keeps_it_when_saved(qwen, tmp_path):
    config = ModelConfig(pooling="lasttoken")
    ours, encoder, tokenizer = embed(qwen, config, TEXTS)
    assert all(ids[-1] == tokenizer.eos_token_id for ids in tokenizer(TEXTS).input_ids)
    worker = Tokenizer.from_str(tokenizer_json(tokenizer))
    assert [one.ids for one in worker.encode_batch(TEXTS)] == tokenizer(TEXTS).input_ids
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), ours, atol=1e-5)
    again = load_tokenizer(tmp_path, config)
    assert again(TEXTS).input_ids == tokenizer(TEXTS).input_ids  # not appended twice


def test_adapters_are_folded_when_saved(qwen, tmp_path):
    config = ModelConfig(pooling="lasttoken", lora=LoraConfig(rank=4, alpha=8, targets=("q_proj", "down_proj")))
    encoder = load_encoder(qwen, config).eval()
    tokenizer = load_tokenizer(qwen, config)
    torch.manual_seed(1)
    assert encoder.trainable()
    with torch.no_grad():
        for parameter in encoder.trainable().values():
            parameter.normal_(std=0.3)
        batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
        ours = encoder(batch["input_ids"], batch["attention_mask"]).numpy()
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    assert set(load_file(tmp_path / "model.safetensors")) == set(load_file(qwen / "model.safetensors"))
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), ours, atol=1e-5)
    with pytest.raises(ModelError, match=r"model\.lora\.targets does not fit"):
        load_encoder(qwen, ModelConfig(lora=LoraConfig(targets=("no_such_layer",))))


def test_adapters_start_alike_on_every_worker(qwen):
    config = ModelConfig(lora=LoraConfig(rank=4))
    starts = []
    for noise, seed in ((1, 0), (2, 0), (3, 5)):
        torch.manual_seed(noise)  # whatever this process has drawn before
        starts.append(load_encoder(qwen, config, seed=seed).trainable())
    one, again, other = starts
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_missing_pooler_is_left_out_and_other_missing_tensors_are_named(bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "cut"))
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if "pooler" not in n}, folder / "model.safetensors", {"format": "pt"})
    one, encoder, tokenizer = embed(folder, ModelConfig(), TEXTS)
    np.testing.assert_allclose(one, embed(bert, ModelConfig(), TEXTS)[0], atol=1e-6)
    prints = []
    for name in ("a", "b"):
        encoder = load_encoder(folder, ModelConfig())
        save_model(encoder, tokenizer, tmp_path / name, {}, 64)
        prints.append(weights_fingerprint(tmp_path / name))
    assert prints[0] == prints[1] == weights_fingerprint(folder)
    lost = next(name for name in tensors if "attention" in name)
    save_file({n: t for n, t in tensors.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lack 1 tensors"):
        load_encoder(folder, ModelConfig())


def test_modules_that_cannot_be_trained_are_refused(bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "dense"))
    entries = json.loads((folder / "modules.json").read_text())
    entries.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError, match="has a Dense module"):
        load_encoder(folder, ModelConfig())
