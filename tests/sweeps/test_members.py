"""Members of several sets in one memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.live import targets
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.store import Store
from boom_ray.sweeps.members import MemberSets
from tests.plain_model import write_plain_model
from tests.sweeps.conftest import MakeJob
from tests.tiny_members import Kitchen

pytestmark = pytest.mark.slow


@pytest.fixture
def live(kitchen: Kitchen) -> torch.nn.Module:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(kitchen.path("base"), device="cpu")


def merge_job(store: Path, job: MakeJob, members: tuple[str, ...], method: str = "linear") -> MergeJob:
    made = job(members=members, method=method)
    return MergeJob(Store(store), made.inputs, made.config)


def model_bytes(kitchen: Kitchen) -> int:
    tensors = load_file(Path(kitchen.path("one")) / "model.safetensors").values()
    return sum(tensor.nbytes for tensor in tensors if tensor.is_floating_point())


def test_members_in_common_are_held_once_and_the_oldest_set_goes_first(
    tmp_path: Path, job: MakeJob, kitchen: Kitchen, live: torch.nn.Module, refs: dict[str, MemberRef]
) -> None:
    size = model_bytes(kitchen)
    sets = MemberSets(live, 1, room=3.5 * size)
    names = (("one", "two", "three"), ("two", "three"), ("half-one", "half-two"))
    three, pair, other = (merge_job(tmp_path, job, own) for own in names)
    fingerprints = {name: refs[name].fingerprint for name in refs}

    def held() -> set[str]:
        return {name for name, fingerprint in fingerprints.items() if fingerprint in sets.held}

    sets.merger(three)
    assert sets.nbytes == 3 * size
    sets.merger(pair)
    assert sets.nbytes == 3 * size and sets.merger(pair) is sets.merger(pair) is not sets.merger(three)
    sets.merger(pair)
    sets.merger(other)  # 16 bits: one model's bytes for both
    assert held() == {"two", "three", "half-one", "half-two"} and sets.nbytes == 3 * size
    sets.merger(three)
    assert held() == {"one", "two", "three"} and sets.nbytes == 3 * size
    sets.clear()
    assert held() == set() and sets.nbytes == 0


def test_a_set_without_room_is_loaded_alone(
    tmp_path: Path, job: MakeJob, kitchen: Kitchen, live: torch.nn.Module
) -> None:
    sets = MemberSets(live, 1, room=1)
    for names in (("one", "two"), ("two", "three"), ("one", "two")):
        task = merge_job(tmp_path, job, names)
        sets.merger(task).apply(task.recipe)
        assert sets.nbytes == 2 * model_bytes(kitchen) and len(sets.held) == 2
        stored = load_file(merge_here(task).local() / MODEL / "model.safetensors")
        with task.opened() as opened:
            found = targets(live, opened.members[0])
        assert all(torch.equal(found[name], stored[name]) for name in found)


def test_the_base_is_held_for_methods_that_read_it_only(
    tmp_path: Path, job: MakeJob, kitchen: Kitchen, live: torch.nn.Module, refs: dict[str, MemberRef]
) -> None:
    sets = MemberSets(live, 1, room=1e9)
    sets.merger(merge_job(tmp_path, job, ("one", "two")))
    assert refs["base"].fingerprint not in sets.held
    sets.merger(merge_job(tmp_path, job, ("one", "two"), "task_arithmetic"))
    assert refs["base"].fingerprint in sets.held and sets.nbytes == 3 * model_bytes(kitchen)


def test_integer_tensors_that_differ_are_refused_as_on_disk(tmp_path: Path) -> None:
    folders = [
        write_plain_model(tmp_path / name, {"weight": torch.ones(2, 2), "ids": torch.arange(number, number + 3)})
        for number, name in enumerate(("a", "b"))
    ]
    inputs = MergeInputs([MemberRef(folder.name, str(folder), folder.name, 1) for folder in folders])
    task = MergeJob(Store(tmp_path / "store"), inputs, MergeConfig(method="linear"))
    with pytest.raises(MergeError, match="Integer tensor ids differs between a and b"):
        merge_here(task)
    with pytest.raises(MergeError, match="Integer tensor ids differs between a and b"):
        MemberSets(torch.nn.Linear(2, 2), 1, room=1e9).merger(task)
