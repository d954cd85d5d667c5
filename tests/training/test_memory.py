from __future__ import annotations

import pytest
import torch

from boom_ray.config import ModelConfig, ResourcesConfig, TrainingConfig
from boom_ray.model.encoder import load_encoder
from boom_ray.model.layout import Layout
from boom_ray.training.memory import GIB, free_bytes, machine_bytes, step_settings, taken_bytes
from tests.tiny_model import make_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(make_tiny_model(tmp_path_factory.mktemp("memory") / "bert"), ModelConfig(), 0.0).train()


def test_kept_tokens_follow_from_memory_and_the_model(encoder):
    def kept(held: int = 0, **resources: float) -> int:
        config = TrainingConfig(resources=ResourcesConfig(**resources))
        return step_settings(encoder, Layout.PLAIN, config, 32, held, autocast=False).kept_tokens

    some, more = kept(memory_gb_per_worker=8), kept(memory_gb_per_worker=16)
    assert 0 < some < more
    each = 0.8 * 8 * GIB / (more - some)
    assert 1_000 < each < 20_000  # bytes per token of two blocks, 32 wide
    assert kept(memory_gb_per_worker=0.001) == 0
    assert kept(held=4 * GIB, memory_gb_per_worker=8) < some


def test_what_the_user_says_counts(encoder):
    config = TrainingConfig(kept_tokens=77, micro_batch_tokens=128)
    settings = step_settings(encoder, Layout.PADDED, config, 32, 0, autocast=False)
    assert (settings.kept_tokens, settings.micro_batch_tokens, settings.layout) == (77, 128, Layout.PADDED)
    assert step_settings(encoder, Layout.PLAIN, TrainingConfig(), 32, 0, autocast=False).micro_batch_tokens == 2048


def test_a_worker_without_a_limit_has_its_share_of_the_machine():
    one, many = (free_bytes(CPU, ResourcesConfig(cpus_per_worker=cpus)) for cpus in (0.5, 1000))
    assert one < many <= machine_bytes()
    assert taken_bytes() > 50 << 20
    assert free_bytes(CPU, ResourcesConfig(memory_gb_per_worker=100)) < 100 * GIB
