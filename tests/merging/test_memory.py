"""The stated memory of a merge: independent of the model's size, and kept in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from boom_ray.config import MergeConfig
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.memory import memory_bound
from boom_ray.merging.recipe import MemberRef
from boom_ray.store import Store
from tests.plain_model import WriteModel

MEASURE = """
import json, resource, sys
from pathlib import Path
from boom_ray.config import MergeConfig
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import merge_here
from boom_ray.store import Store
import torch
folders, store, config = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
refs = [MemberRef(Path(folder).name, folder, folder, 1) for folder in folders]
(torch.ones(4, 4) @ torch.ones(4, 4)).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
figures = merge_here(MergeJob(Store(store), MergeInputs(refs[1:], refs[0]), MergeConfig.model_validate(config))).figures
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"used": (after - before) * 1024, "bound": figures["memory_bound"]}))
"""


@pytest.fixture
def folders(write_model: WriteModel) -> list[Path]:
    """Base and three members of 64 MiB."""
    common = torch.randn(16384, 1024, generator=torch.Generator().manual_seed(9))
    return [
        write_model(f"m{seed}", {"w": common + 0.01 * torch.randn(16384, 1024), "v": torch.ones(7)})
        for seed in range(4)
    ]


def bound(folders: list[Path], threads: int = 2, **config: Any) -> int:
    refs = [MemberRef(folder.name, str(folder), folder.name, 1) for folder in folders]
    job = MergeJob(Store("/nowhere"), MergeInputs(refs[1:], refs[0]), MergeConfig.model_validate(config))
    with job.opened() as opened:
        return memory_bound(opened, job.recipe, job.chunk_bytes, threads)


def test_it_grows_with_chunk_and_threads_and_not_with_the_model(write_model: WriteModel) -> None:
    small, large = (
        [write_model(f"{rows}-{index}", {"w": torch.ones(rows, 128)}) for index in range(3)]
        for rows in (20_000, 40_000)
    )
    config: dict[str, Any] = {"method": "multislerp", "chunk_mb": 1}
    assert bound(small, **config) == bound(large, **config)
    assert bound(large, chunk_mb=2, method="multislerp") == bound(large, **config) + 2 * (1 << 20)
    assert bound(large, 4, **config) > bound(large, 2, **config)
    assert bound(large, method="linear", chunk_mb=1) < bound(large, **config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"method": "linear"},
        {"method": "multislerp", "base": "base"},
        {"method": "ties"},
        {"method": "della_ties"},
        {"method": "sce", "parameters": {"select": 0.5}},
        {"method": "model_stock", "parameters": {"granularity": "row"}},
    ],
    ids=lambda config: config["method"],
)
def test_it_is_kept(folders: list[Path], tmp_path: Path, config: dict[str, Any]) -> None:
    config = {**config, "chunk_mb": 8, "cpus": 2}
    command = [sys.executable, "-c", MEASURE, json.dumps([str(one) for one in folders]), str(tmp_path / "store")]
    done = subprocess.run([*command, json.dumps(config)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["used"] <= found["bound"] < sum(one.stat().st_size for one in folders[0].glob("*.safetensors")) * 4
