"""Weights that workers leave, evaluated by tasks of the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from boom_ray.config import ModelConfig, ProgressScoresConfig, TrainingConfig
from boom_ray.errors import EvaluationError
from boom_ray.events import Event
from boom_ray.model.encoder import load_encoder
from boom_ray.store import Store
from boom_ray.training.job import MemberJob
from boom_ray.training.scores import Leaver, Saved, ScoreTasks, remove_left
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("scores") / "base")


def make_job(base: Path) -> MemberJob:
    names = {"name": "m", "bag": "b", "bag_key": "k", "corpus": "c", "base": "f", "base_place": str(base)}
    rest = {"parts": {}, "policies": {}, "seed": 0, "prompts": {}, "max_tokens": 64}
    return MemberJob(**names, **rest, model=ModelConfig(), training=TrainingConfig())


def leave_some(store: Store, base: Path) -> list[Saved]:
    saved: list[Saved] = []
    leaver = Leaver(store, make_job(base), 20, saved.append)
    weights = {name: one.detach() for name, one in load_encoder(base, ModelConfig()).trainable().items()}
    for step in (5, 10):
        leaver.leave(step, {name: value + step for name, value in weights.items()})
        wait_for(lambda: leaver._last is not None and leaver._last.done())
    leaver.close()
    return saved


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not there():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def test_weights_lie_in_the_store_until_they_are_evaluated(tmp_path, base):
    store = Store(tmp_path)
    first, second = leave_some(store, base)
    assert (first.member, first.step, first.steps) == ("m", 5, 20)
    paths = sorted(path for path in (tmp_path / "training").glob("*.scores/*"))
    assert [path.name.split("-")[0] for path in paths] == ["step000000005", "step000000010"]
    assert [str(path) for path in paths] == [first.place, second.place]
    (again, _) = leave_some(store, base)
    assert again.place != first.place  # another attempt at the same step
    remove_left(store, make_job(base))
    assert not list((tmp_path / "training").glob("*.scores"))
    remove_left(store, make_job(base))


def test_a_store_that_is_slower_than_training_costs_scores_not_memory(tmp_path, base, monkeypatch):
    told: list[Saved | Event] = []
    leaver = Leaver(Store(tmp_path), make_job(base), 20, told.append)
    free = threading.Event()
    leave = leaver._leave
    monkeypatch.setattr(leaver, "_leave", lambda *arguments: free.wait(30) and leave(*arguments))
    weights = {"w": torch.zeros(3)}
    for step in (5, 10, 15):
        leaver.leave(step, weights)
    free.set()
    leaver.close()
    assert [(type(one).__name__, one.step if isinstance(one, Saved) else int(one.done)) for one in told] == [
        ("Event", 10),
        ("Event", 15),
        ("Saved", 5),
    ]
    assert "step 10 is not evaluated" in told[0].note


def bias_of(folder: Path) -> dict[str, float]:
    """What a scorer sees: a complete model of that step."""
    encoder = load_encoder(folder, ModelConfig())
    value = float(encoder.core.embeddings.LayerNorm.bias.mean())
    if value > 9:
        raise EvaluationError("this task is broken")
    return {"bias": value}


@pytest.mark.ray
def test_tasks_report_scores_at_their_step_and_failures_as_notes(ray_cluster, tmp_path, base):
    store, events = Store(tmp_path), []
    config = ProgressScoresConfig(cpus=0.5)
    tasks = ScoreTasks(store, {"m": make_job(base)}, bias_of, config, events.append)
    for saved in leave_some(store, base):
        tasks.start(saved)
    tasks.collect(wait=True)
    found: dict[int, Event] = {int(event.done): event for event in events}
    assert not found[5].note
    assert found[5].figures == {"score/bias": pytest.approx(5.0)}
    assert found[10].figures == {}
    assert found[10].note == "evaluation at step 10 failed: this task is broken"
    assert not list((tmp_path / "training").glob("*.scores/*"))  # neither what was read nor what failed
