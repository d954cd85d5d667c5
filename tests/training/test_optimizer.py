from __future__ import annotations

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from boom_ray.config import DenseConfig, ModelConfig, TrainingConfig
from boom_ray.errors import ModelError
from boom_ray.model.encoder import load_encoder
from boom_ray.training.optimizer import learning_rate, make_optimizer, parameter_groups, set_rate
from tests.tiny_model import make_tiny_model


def curve(total: int, **changes) -> list[float]:
    config = TrainingConfig(learning_rate=1.0, **changes)
    return [learning_rate(update, total, config) for update in range(total)]


def test_warmup_rises_linearly_to_the_rate_and_linear_decay_falls_to_zero():
    rates = curve(10, warmup_ratio=0.2, decay="linear")
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_warm_up_in_updates_does_not_follow_the_length():
    for total in (5, 50):
        rates = curve(total, warmup_updates=4, warmup_ratio=0.5, decay="constant")
        assert rates == [0.25, 0.5, 0.75, *[1.0] * (total - 3)]
    assert curve(3, warmup_updates=0, warmup_ratio=0.5) == pytest.approx([1, 2 / 3, 1 / 3])
    assert curve(2, warmup_updates=4) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("decay", "reference"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_decay_equals_transformers_after_the_warm_up(decay, reference):
    rates = curve(50, warmup_ratio=0.1, decay=decay)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = reference(optimizer, 5, 50)
    for update, rate in enumerate(rates):
        if update >= 5:
            assert rate == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_cosine_and_constant():
    rates = curve(10, warmup_ratio=0.0, decay="cosine")
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])
    assert curve(10, warmup_ratio=0.1, decay="constant") == [1.0] * 10


def test_wsd_stays_and_falls_at_the_end():
    rates = curve(10, warmup_ratio=0.1, decay="wsd", decay_ratio=0.4, final_ratio=0.2)
    assert rates == pytest.approx([1.0] * 7 + [0.8, 0.6, 0.4])
    assert curve(10, warmup_ratio=0.5, decay="wsd", decay_ratio=0.9)[5:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("optimizer") / "bert", layers=3)
    return load_encoder(folder, ModelConfig(dense=(DenseConfig(dimension=4),)))


def test_biases_norms_and_named_parameters_have_no_weight_decay(encoder):
    config = TrainingConfig(weight_decay=0.1, no_decay=("embeddings.*", "*.layer.2.*"))
    groups = parameter_groups(encoder, config)
    decay = {name: group.decay for group in groups for name in group.names}
    assert decay.keys() == encoder.trainable().keys()
    for name, parameter in encoder.trainable().items():
        excluded = parameter.ndim == 1 or "embeddings." in name or ".layer.2." in name
        assert decay[name] == (0.0 if excluded else 0.1), name
    with pytest.raises(ModelError, match=r"training.no_decay: \*.layer.7.\* matches no trained parameter"):
        parameter_groups(encoder, TrainingConfig(no_decay=("*.layer.7.*",)))


def test_layers_have_rates_that_fall_with_their_depth(encoder):
    groups = parameter_groups(encoder, TrainingConfig(layer_decay=0.5))
    rate = {name: group.rate for group in groups for name in group.names}
    for name, value in rate.items():
        expected = 0.5**3 if "embeddings" in name else 1.0
        for number in range(3):
            if f".layer.{number}." in name:
                expected = 0.5 ** (2 - number)
        assert value == expected, name
    assert {group.rate for group in parameter_groups(encoder, TrainingConfig())} == {1.0}


def test_groups_start_with_what_is_computed_last(encoder):
    names = [name for group in parameter_groups(encoder, TrainingConfig(weight_decay=0.0)) for name in group.names]
    assert names == list(reversed(encoder.trainable()))


def test_every_group_gets_its_share_of_the_rate(encoder):
    config = TrainingConfig(layer_decay=0.5, learning_rate=1e-3, eps=1e-6, betas=(0.8, 0.9))
    trained = encoder.trainable()
    groups = parameter_groups(encoder, config)
    adam = make_optimizer(
        [{"params": [trained[n] for n in g.names], "weight_decay": g.decay, "rate": g.rate} for g in groups], config
    )
    set_rate(adam, 2.0)
    assert [group["lr"] for group in adam.param_groups] == [2.0 * group.rate for group in groups]
    assert adam.defaults["eps"] == 1e-6
    assert adam.defaults["betas"] == (0.8, 0.9)
