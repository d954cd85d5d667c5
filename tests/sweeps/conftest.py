"""Three fine-tunes of a tiny base, a base for them, tasks, and jobs over them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig, TaskConfig
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint
from boom_ray.sweeps.job import TrialJob
from tests.evaluation.task_folders import TYPES, write_task
from tests.tiny_members import MEMBERS, Kitchen, make_kitchen


class MakeJob(Protocol):
    """Makes a trial's job from a merge section, e.g. ``job(method="linear")``."""

    def __call__(
        self, members: tuple[str, ...] = ..., tasks: tuple[TaskConfig, ...] | None = None, **merge: Any
    ) -> TrialJob: ...


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on one core, whatever an evaluator of another test has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """The models, and 16-bit copies of the members: half-one, half-two, half-three."""
    made = make_kitchen(tmp_path_factory.mktemp("sweeps"))
    for name in MEMBERS:
        narrow(Path(made.path(name)), Path(made.path(f"half-{name}")))
    return made


def narrow(source: Path, target: Path) -> None:
    """A copy of a model in bfloat16."""
    shutil.copytree(source, target)
    tensors = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskConfig, ...]:
    """A folder of every type."""
    root = tmp_path_factory.mktemp("tasks")
    return tuple(write_task(root / kind, kind) for kind in TYPES)


@pytest.fixture(scope="session")
def refs(kitchen: Kitchen) -> dict[str, MemberRef]:
    """All models by name."""
    names = ["base", *MEMBERS, *(f"half-{name}" for name in MEMBERS)]
    return {
        name: MemberRef(name, kitchen.path(name), weights_fingerprint(Path(kitchen.path(name))), 10 * number)
        for number, name in enumerate(names)
    }


@pytest.fixture
def job(refs: dict[str, MemberRef], tasks: tuple[TaskConfig, ...]) -> MakeJob:
    """Makes jobs; by default of all three members on the sts and the classification task."""
    usual = tuple(task for task in tasks if task.type in {"sts", "classification"})

    def make(members: tuple[str, ...] = MEMBERS, tasks: tuple[TaskConfig, ...] | None = None, **merge: Any) -> TrialJob:
        inputs = MergeInputs([refs[name] for name in members], refs["base"])
        name = f"{merge} of {'+'.join(members)}"
        return TrialJob(name, inputs, MergeConfig.model_validate(merge), usual if tasks is None else tasks)

    return make
