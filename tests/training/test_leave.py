from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from boom_ray.config import DenseConfig, LoraConfig, ModelConfig, TrainingConfig
from boom_ray.errors import TrainingError
from boom_ray.model.encoder import load_encoder
from boom_ray.model.steps import StepSettings, embed
from boom_ray.store import Store
from boom_ray.training.job import MemberJob
from boom_ray.training.leave import write_folder
from boom_ray.training.loop import TYPES
from tests.tiny_model import make_tiny_model

TEXT = "sort a list of numbers"


def make_job(base, model: ModelConfig) -> MemberJob:
    training = TrainingConfig(dropout=0.0)
    names = {"name": "m", "bag": "b", "bag_key": "k", "corpus": "c", "base": "f", "base_place": str(base)}
    return MemberJob(
        **names, parts={}, policies={}, model=model, training=training, seed=4, prompts={"query": "q: "}, max_tokens=64
    )


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8, targets=("query", "value"))])
def test_the_folder_is_the_base_with_what_was_trained(tmp_path, lora):
    """Also where the base was computed with in bfloat16: what was not trained is the base's own, not rounded."""
    base = make_tiny_model(tmp_path / "base")
    job = make_job(base, ModelConfig(pooling="mean", lora=lora, frozen=() if lora else ("embeddings.*",)))
    encoder = load_encoder(base, job.model, 0.0, job.seed).to(TYPES["float32"]).eval()
    generator = torch.Generator().manual_seed(1)
    trained = {}
    with torch.no_grad():
        for name, parameter in encoder.trainable().items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            trained[name] = parameter.clone()
    ids = np.array(SentenceTransformer(str(base), device="cpu").tokenizer(TEXT).input_ids, dtype=np.int32)
    expected = embed(encoder, [ids], StepSettings(pad_id=encoder.pad_id)).numpy()
    (tmp_path / "out").mkdir()
    write_folder(Store(tmp_path / "store"), job, trained, tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(model.encode([TEXT]), expected, atol=1e-6)
    assert model.prompts["query"] == "q: "


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    job = make_job(base, ModelConfig())
    trained = {name: one.detach().clone() for name, one in load_encoder(base, job.model).trainable().items()}
    (tmp_path / "out").mkdir()
    trained["transformer.embeddings.LayerNorm.bias"][3] = float("nan")
    with pytest.raises(TrainingError, match=r"Member m: the trained tensor transformer\.embeddings\S+ holds NaN"):
        write_folder(Store(tmp_path / "store"), job, trained, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    trained.pop("transformer.embeddings.LayerNorm.bias")
    with pytest.raises(TrainingError, match=r"LayerNorm.bias was trained in one place and is missing in another"):
        write_folder(Store(tmp_path / "store"), job, trained, tmp_path / "out")


def test_linear_layers_of_the_configuration_are_added_once(tmp_path):
    """A base artifact has them already when members load it."""
    from boom_ray.model.encoder import save_model
    from boom_ray.model.tokenizer import load_tokenizer

    model = ModelConfig(dense=(DenseConfig(dimension=8),))
    plain = make_tiny_model(tmp_path / "plain")
    save_model(load_encoder(plain, model, seed=4), load_tokenizer(plain, model), tmp_path / "base", {}, 64)
    job = make_job(tmp_path / "base", model)
    trained = load_encoder(tmp_path / "base", ModelConfig(), 0.0).trainable()
    (tmp_path / "out").mkdir()
    write_folder(Store(tmp_path / "store"), job, {n: one.detach() for n, one in trained.items()}, tmp_path / "out")
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").encode([TEXT]).shape == (1, 8)
