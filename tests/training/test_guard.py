from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from boom_ray.config import TrainingConfig
from boom_ray.errors import TrainingError
from boom_ray.training.guard import Guard

CPU = torch.device("cpu")


def batch(name: str = "a", first: int = 7):
    return SimpleNamespace(dataset=name, ids=np.arange(first, first + 20, dtype=np.uint64))


def judge(guard: Guard, loss: float, norm: float = 1.0, name: str = "a", step: int = 0) -> float:
    return float(guard.judge(step, [batch(name)], [torch.tensor(loss)], torch.tensor(norm, dtype=torch.float64)))


def test_only_finite_losses_and_norms_are_good():
    guard = Guard(TrainingConfig(on_bad_step="skip"), CPU)
    cases = [(1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan")), (1.0, float("inf"))]
    assert [judge(guard, *case) for case in cases] == [0, 1, 1, 1, 1]
    assert len(guard.check()) == 4
    assert guard.check() == []


def test_a_bad_update_is_an_error_that_names_everything():
    guard = Guard(TrainingConfig(), CPU)
    judge(guard, 1.0)
    assert guard.check() == []
    judge(guard, float("nan"), 2.5, "long", step=31)
    with pytest.raises(TrainingError) as error:
        guard.check()
    text = str(error.value)
    assert "Step 31 gave loss nan and gradient norm 2.5, not finite, on dataset long" in text
    assert "examples 0000000000000007, 0000000000000008" in text
    assert "000000000000000e…" in text
    assert "000000000000000f" not in text  # eight of them are enough


def test_a_first_loss_that_is_not_finite_is_no_average():
    guard = Guard(TrainingConfig(max_leap=2.0, on_bad_step="skip"), CPU)
    assert [judge(guard, loss) for loss in (float("nan"), float("inf"), 1.0, 1.0, 9.0)] == [1, 1, 0, 0, 1]
    assert guard.averages()["a"] == pytest.approx(1.0)


def test_a_leap_is_measured_against_the_datasets_own_average():
    guard = Guard(TrainingConfig(max_leap=2.0, on_bad_step="skip"), CPU)
    assert [judge(guard, loss) for loss in (1.0, 1.0, 1.9)] == [0, 0, 0]
    assert judge(guard, 50.0, name="b") == 0  # the first of its dataset
    before = guard.averages()
    assert before["a"] == pytest.approx(0.9 * 1.0 + 0.1 * 1.9)
    assert judge(guard, 2 * before["a"] + 0.01) == 1
    assert judge(guard, float("nan")) == 1
    assert guard.averages() == before  # bad losses do not move it
    again = Guard(TrainingConfig(max_leap=2.0), CPU, guard.averages())
    judge(again, 3.0)
    with pytest.raises(TrainingError, match="more than max_leap=2 times the moving average of its dataset"):
        again.check()
