from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from boom_ray.errors import DataError
from boom_ray.model.steps import StepSettings
from boom_ray.training.reader import read_ahead


def batch(step: int):
    return SimpleNamespace(texts=[np.arange(1, 3 + step, dtype=np.int32)], step=step, index=torch.zeros(1))


def test_steps_come_in_order_and_only_so_many_ahead():
    asked: list[int] = []

    def read(step: int):
        asked.append(step)
        return batch(step)

    works = read_ahead(read, 2, 9, 2, StepSettings())
    first = next(works)
    deadline = time.monotonic() + 10
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert asked == [2, 3, 4]
    assert first.batch.step == 2
    assert [work.batch.step for work in works] == [3, 4, 5, 6, 7, 8]
    assert asked == list(range(2, 9))


def test_an_error_comes_when_its_step_does_and_ends_the_thread():
    def read(step: int):
        if step == 1:
            raise DataError("row 5 of file x is damaged")
        return batch(step)

    before = set(threading.enumerate())
    works = read_ahead(read, 0, 5, 3, StepSettings())
    next(works)
    with pytest.raises(DataError, match="row 5"):
        next(works)
    assert set(threading.enumerate()) <= before
    stopped = read_ahead(batch, 0, 5, 3, StepSettings())
    next(stopped)
    stopped.close()
    assert set(threading.enumerate()) <= before
