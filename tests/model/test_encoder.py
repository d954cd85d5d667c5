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
from transformers import MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

from boom_ray.config import DenseConfig, LoraConfig, ModelConfig
from boom_ray.errors import ModelError
from boom_ray.model.encoder import load_encoder, save_model
from boom_ray.model.folder import weights_fingerprint
from boom_ray.model.pooling import pool, pool_masked
from boom_ray.model.texts import TextBatch, packed, padded
from boom_ray.model.tokenizer import load_tokenizer, tokenizer_json
from tests.tiny_decoder import make_tiny_decoder
from tests.tiny_model import make_tiny_model

TEXTS = ["sort a list", "the cat", "open the file and read all text of it", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, bert) -> Path:
    return make_tiny_decoder(tmp_path_factory.mktemp("qwen") / "qwen", bert)


def tokens(tokenizer, texts: list[str]) -> TextBatch:
    return padded([np.array(ids, dtype=np.int32) for ids in tokenizer(texts).input_ids], tokenizer.pad_token_id)


def embed(folder: Path, config: ModelConfig, texts: list[str]) -> tuple[np.ndarray, object, object]:
    encoder = load_encoder(folder, config, dropout=0.0).eval()
    tokenizer = load_tokenizer(folder, config)
    with torch.no_grad():
        vectors = encoder(tokens(tokenizer, texts))
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
        torch.testing.assert_close(pool_masked(states, right, mode), pool_masked(turned, left, mode))
    torch.testing.assert_close(pool_masked(states, right, "lasttoken")[0], states[0, 2])
    torch.testing.assert_close(pool_masked(states, right, "cls")[1], states[1, 0])


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_packed_and_padded_texts_pool_alike(mode):
    texts = [np.arange(length, dtype=np.int32) for length in (3, 1, 4)]
    states = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    flat = torch.cat([states[row, : len(text)] for row, text in enumerate(texts)])[None]
    expected = pool(states, padded(texts), mode)
    torch.testing.assert_close(pool(flat, packed(texts), mode), expected)
    whole = padded([texts[2], texts[2]])
    assert whole.mask is None
    torch.testing.assert_close(pool(states[:2], whole, mode), pool_masked(states[:2], torch.ones(2, 4), mode))


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
        ours = encoder(tokens(tokenizer, TEXTS)).numpy()
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


def test_every_lora_option_reaches_peft_and_is_folded(qwen, tmp_path):
    lora = LoraConfig(
        rank=4,
        alpha=8,
        targets="all-linear",
        exclude=("v_proj", "k_proj", "o_proj", "gate_proj", "up_proj"),
        layers=(1,),
        rank_pattern={"down_proj": 2},
        alpha_pattern={"q_proj": 2.0},
        rslora=True,
        dora=True,
        modules_to_save=("norm",),
    )
    encoder = load_encoder(qwen, ModelConfig(pooling="lasttoken", lora=lora)).eval()
    shapes = {name: tuple(one.shape) for name, one in encoder.trainable().items()}
    assert not any("lora" in name and ("layers.0" in name or "v_proj" in name) for name in shapes)
    assert {shape[0] for name, shape in shapes.items() if "lora_A" in name and "q_proj" in name} == {4}
    assert {shape[0] for name, shape in shapes.items() if "lora_A" in name and "down_proj" in name} == {2}
    assert any("magnitude" in name for name in shapes)
    assert any("modules_to_save" in name for name in shapes)
    tokenizer = load_tokenizer(qwen, ModelConfig(pooling="lasttoken"))
    with torch.no_grad():
        for name, parameter in encoder.trainable().items():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        ours = encoder(tokens(tokenizer, TEXTS)).numpy()
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), ours, atol=1e-5)


def test_new_linear_layers_start_alike_and_survive_saving_and_loading(bert, tmp_path):
    layers = (DenseConfig(dimension=16, activation="tanh"), DenseConfig(dimension=8, bias=False))
    config = ModelConfig(dense=layers)
    ours, encoder, tokenizer = embed(bert, config, TEXTS)
    assert ours.shape == (len(TEXTS), 8)
    assert encoder.dimension == 8
    np.testing.assert_array_equal(ours, embed(bert, config, TEXTS)[0])
    assert any(name.startswith("dense.1.") for name in encoder.trainable())
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), ours, atol=1e-6)
    again = embed(tmp_path, ModelConfig(), TEXTS)[0]
    np.testing.assert_allclose(again, ours, atol=1e-6)


def test_sentence_transformers_own_dense_modules_are_loaded(bert, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(bert), device="cpu")
    torch.manual_seed(0)
    model.insert(2, Dense(32, 12, activation_function=torch.nn.GELU()))
    model.save(str(tmp_path))
    np.testing.assert_allclose(embed(tmp_path, ModelConfig(), TEXTS)[0], model.encode(TEXTS), atol=1e-6)


def test_a_residual_dense_module_is_refused(bert, tmp_path):
    _, encoder, tokenizer = embed(bert, ModelConfig(dense=(DenseConfig(dimension=32),)), TEXTS)
    save_model(encoder, tokenizer, tmp_path, {}, 64)
    path = tmp_path / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_residual": True}))
    with pytest.raises(ModelError, match=r"2_Dense.config.json: a Dense module can be trained with one of tanh"):
        load_encoder(tmp_path, ModelConfig())


def test_frozen_patterns_stop_training_and_must_match(bert):
    config = ModelConfig(frozen=("embeddings.*", "encoder.layer.[0]*"))
    names = load_encoder(bert, config).trainable()
    assert names
    assert all(name.startswith("transformer.encoder.layer.1.") for name in names)
    with pytest.raises(ModelError, match=r"model.frozen: layer.9.\* matches no parameter; their names are like embed"):
        load_encoder(bert, ModelConfig(frozen=("layer.9.*",)))
    with pytest.raises(ModelError, match="leaves nothing to train"):
        load_encoder(bert, ModelConfig(frozen=("*",)))


def test_decoders_keep_no_keys_and_values(qwen):
    encoder = load_encoder(qwen, ModelConfig(pooling="lasttoken"))
    assert encoder.core.config.use_cache is False
    assert len(encoder.blocks()) == 2


def test_texts_must_not_be_longer_than_a_table_of_positions(bert, qwen, tmp_path):
    load_encoder(bert, ModelConfig()).check_length(128)
    with pytest.raises(ModelError, match=r"positions of 128 tokens, and texts may have 129. Set corpus.max_query_tok"):
        load_encoder(bert, ModelConfig()).check_length(129)
    load_encoder(qwen, ModelConfig()).check_length(10**6)  # positions are computed
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    RobertaModel(RobertaConfig(vocab_size=9, max_position_embeddings=34, **shape)).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, ModelConfig())
    encoder.check_length(32)  # two rows of its table are for padding
    with pytest.raises(ModelError, match="positions of 32 tokens"):
        encoder.check_length(33)


def test_a_model_without_gradient_checkpointing_says_so(tmp_path):
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    MPNetModel(MPNetConfig(vocab_size=9, **shape)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"MPNetModel, which has no gradient checkpointing: set model.gradient_check"):
        load_encoder(tmp_path, ModelConfig(gradient_checkpointing=True))


def test_modules_that_cannot_be_trained_are_refused(bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "lstm"))
    entries = json.loads((folder / "modules.json").read_text())
    entries.append({"idx": 3, "name": "3", "path": "3_LSTM", "type": "sentence_transformers.models.LSTM"})
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError, match="has a LSTM module"):
        load_encoder(folder, ModelConfig())
