from __future__ import annotations

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from boom_ray.config import TrainingConfig
from boom_ray.training.optimizer import learning_rate, make_optimizer


@pytest.mark.parametrize(
    ("decay", "reference"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_decay_equals_transformers_after_the_warm_up(decay, reference):
    total, warmup = 50, 5
    config = TrainingConfig(learning_rate=1.0, warmup_ratio=0.1, decay=decay)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = reference(optimizer, warmup, total)
    for step in range(total):
        if step >= warmup:
            assert learning_rate(step, total, config) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_rise_has_no_step_at_zero_and_constant_stays():
    config = TrainingConfig(learning_rate=2.0, warmup_ratio=0.25, decay="constant")
    assert [learning_rate(step, 8, config) for step in range(8)] == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert learning_rate(0, 1, TrainingConfig(learning_rate=2.0, warmup_ratio=0.0)) == 2.0


def test_only_matrices_decay():
    parameters = {"w": torch.nn.Parameter(torch.ones(2, 2)), "b": torch.nn.Parameter(torch.ones(2))}
    optimizer = make_optimizer(parameters, TrainingConfig(weight_decay=0.1))
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.1), (1, 0.0)]
