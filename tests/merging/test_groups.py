"""A task per saved file: the same bytes as in one process, also when tasks are killed, and into remote stores."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

import boom_ray.merging.run as stage
from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.events import Event
from boom_ray.merging import groups
from boom_ray.merging.geometry.statistics import find_geometry
from boom_ray.merging.job import FileResult, MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge, merge_here, plan_merge
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Draft, Store
from tests.plain_model import WriteModel
from tests.processes import descendants

Ref = Callable[..., MemberRef]
SPREAD = MergeConfig(method="multislerp", base="base", shard_gb=0.0005, distribute_gb=0, cpus=1)
FILES = 6


@pytest.fixture
def refs(write_model: WriteModel, ref: Ref) -> list[MemberRef]:
    """Base and two members of several files when merged."""

    def noisy(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {f"w{index}": torch.randn(100_000, generator=generator) for index in range(FILES)}

    dense = {"2_Dense": {"linear.weight": torch.ones(3, 4), "ids": torch.arange(5)}}
    return [ref(write_model(f"m{seed}", noisy(seed), modules=dense)) for seed in range(3)]


def inputs(refs: list[MemberRef]) -> MergeInputs:
    return MergeInputs(refs[1:], refs[0])


@pytest.mark.ray
def test_a_task_per_file_gives_the_bytes_of_one_process(
    ray_cluster: None, tmp_path: Path, refs: list[MemberRef]
) -> None:
    events: list[Event] = []
    store = Store(tmp_path / "store")
    here = merge_here(MergeJob(Store(tmp_path / "other"), inputs(refs), SPREAD))
    there = merge(store, inputs(refs), SPREAD, events.append)
    assert (there.key, there.fingerprint, there.files) == (here.key, here.fingerprint, here.files)
    assert len([name for name in there.files if name.endswith(".safetensors")]) == FILES + 1
    assert weights_fingerprint(there.local() / MODEL) == there.fingerprint
    for name in there.files:
        assert (there.local() / name).read_bytes() == (here.local() / name).read_bytes(), name
    assert events[-2].done == events[-2].total == there.figures["bytes_written"]
    assert find_geometry(MergeJob(store, inputs(refs), SPREAD)).grams.keys() == {
        *(f"w{index}" for index in range(FILES)),
        "2_Dense/linear.weight",
    }


@pytest.mark.ray
def test_an_error_of_a_task_names_the_tensor_and_leaves_nothing(
    ray_cluster: None, tmp_path: Path, refs: list[MemberRef], write_model: WriteModel, ref: Ref
) -> None:
    broken = {f"w{index}": torch.full((100_000,), torch.nan if index == 4 else 1.0) for index in range(FILES)}
    dense = {"2_Dense": {"linear.weight": torch.ones(3, 4), "ids": torch.arange(5)}}
    bad = ref(write_model("bad", broken, modules=dense))
    with pytest.raises(MergeError, match="Tensor w4 of bad"):
        merge(Store(tmp_path / "store"), MergeInputs([refs[1], bad], refs[0]), SPREAD)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.ray
@pytest.mark.slow
def test_killed_tasks_run_again_and_write_the_same(
    ray_cluster: None, tmp_path: Path, write_model: WriteModel, ref: Ref
) -> None:
    def noisy(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {f"w{index}": torch.randn(3000, 1000, generator=generator) for index in range(4)}

    models = [ref(write_model(f"large{seed}", noisy(seed))) for seed in range(4)]
    config = MergeConfig(method="della_ties", shard_gb=0.013, distribute_gb=0, cpus=1)
    killed: list[int] = []
    stop = threading.Event()
    watcher = threading.Thread(target=kill_tasks, args=("ray::merge model-0000", 2, killed, stop), daemon=True)
    watcher.start()
    try:
        there = merge(Store(tmp_path / "store"), inputs(models), config)
    finally:
        stop.set()
        watcher.join()
    assert len(killed) == 2
    here = merge_here(MergeJob(Store(tmp_path / "other"), inputs(models), config))
    assert (there.fingerprint, there.files) == (here.fingerprint, here.files)


def kill_tasks(title: str, count: int, killed: list[int], stop: threading.Event) -> None:
    """Kill the first processes that call themselves so, shortly after they have begun."""
    while not stop.is_set() and len(killed) < count:
        for process in [one for one in descendants(title) if one.pid not in killed][:1]:
            time.sleep(0.05)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.append(process.pid)
        time.sleep(0.01)


def test_files_go_up_into_a_remote_store(tmp_path: Path, refs: list[MemberRef]) -> None:
    store = Store(f"memory://{tmp_path.name}/store", scratch=tmp_path)
    job = MergeJob(store, inputs(refs), SPREAD)
    with job.opened() as opened:
        plan = plan_merge(job, opened)

    def write(draft: Draft) -> FileResult:
        result = FileResult()
        for file in plan.files:
            result.add(groups._merge_file(job, file, plan.key, draft.path, MODEL))
            name = groups._name(MODEL, file)
            draft.placed[name] = store.uploaded_size("merge", plan.key, name)
        return result

    there = stage._materialize(job, plan, write)
    here = merge_here(MergeJob(Store(tmp_path / "here"), inputs(refs), SPREAD))
    assert (there.key, there.fingerprint, there.files) == (here.key, here.fingerprint, here.files)
    assert weights_fingerprint(there.local() / MODEL) == here.fingerprint
    assert not list(tmp_path.glob(f"{groups.PART}*"))


@pytest.mark.ray
def test_one_machine_is_no_question_of_place(ray_cluster: None, tmp_path: Path, refs: list[MemberRef]) -> None:
    job = MergeJob(Store(tmp_path), inputs(refs), SPREAD)
    assert groups.places(job) == [None]
    assert groups.cpus(job) == 1
    free = MergeJob(Store(tmp_path), inputs(refs), MergeConfig())
    assert groups.cpus(free) == 4
    assert groups.with_cpus(free).threads == 4
    sizes = sum(path.stat().st_size for one in refs for path in Path(one.path).rglob("*") if path.is_file())
    assert groups._here(job.store, [one.path for one in refs]) == (3, sizes)
    assert groups._here(job.store, ["/nowhere", "artifact:member/x/model"]) == (1, 0)


def test_machines_that_can_read_all_models_share_the_work_and_those_with_copies_come_first() -> None:
    assert groups.ranked({"a": (3, 0), "b": (3, 50), "c": (2, 90), "d": (3, 40)}) == ["b", "d", "a"]
    assert groups.ranked({}) == [None]
