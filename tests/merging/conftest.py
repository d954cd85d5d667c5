"""Fixtures of the merge tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint
from tests.plain_model import WriteModel, write_plain_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on one core: torch's threads would wait for one another at every call on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """`write_plain_model` with a name instead of a folder."""

    def write(name: str, *args: Any, **options: Any) -> Path:
        return write_plain_model(tmp_path / name, *args, **options)

    return write


@pytest.fixture
def ref() -> Callable[..., MemberRef]:
    """A reference to a folder, named after it."""

    def make(folder: Path, examples: int = 1) -> MemberRef:
        return MemberRef(folder.name, str(folder), weights_fingerprint(folder), examples)

    return make
