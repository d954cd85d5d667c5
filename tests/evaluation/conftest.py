"""One tiny model and one tiny folder per task type for all evaluation tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from boom_ray.config import TaskConfig
from boom_ray.evaluation.scores import ModelRef
from tests.evaluation.task_folders import TYPES, write_task
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef.of("tiny", make_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskConfig]:
    root: Path = tmp_path_factory.mktemp("tasks")
    return {kind: write_task(root / f"My{kind}", kind) for kind in TYPES}
