"""A live model becomes the same merge as one on disk, for every kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.live import LiveMerger, targets
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.merging.stream import Opened
from boom_ray.store import Store
from tests.tiny_model import make_tiny_model

CONFIGS: tuple[dict[str, Any], ...] = (
    {"method": "linear", "weights": [1, 2, 3]},
    {"method": "multislerp"},
    {"method": "multislerp", "base": "base", "weights": [1, 2, 3]},
    {"method": "model_stock", "parameters": {"granularity": "row"}},
    {"method": "ties", "parameters": {"density": 0.3}},
    {"method": "ties", "parameters": {"density": 0.3, "scope": "model"}},
    {"method": "della_ties"},
    {"method": "multislerp", "rules": [{"tensors": "*", "layers": "0", "weights": [1, 0, 0]}]},
)


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[MemberRef]:
    """Base and three members with noise."""
    folder = tmp_path_factory.mktemp("models")
    found = []
    for index in range(4):
        model = make_tiny_model(folder / f"m{index}", seed=0)
        tensors = load_file(model / "model.safetensors")
        generator = torch.Generator().manual_seed(index)
        noisy = {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in sorted(tensors.items())
        }
        save_file(noisy, model / "model.safetensors", {"format": "pt"})
        found.append(MemberRef(model.name, str(model), f"fingerprint{index}", 1))
    return found


def job(store: Path, refs: list[MemberRef], config: dict[str, Any]) -> MergeJob:
    return MergeJob(Store(store), MergeInputs(refs[1:], refs[0]), MergeConfig.model_validate(config))


@pytest.fixture
def opened(refs: list[MemberRef], tmp_path: Path) -> Iterator[Opened]:
    with job(tmp_path, refs, {"method": "task_arithmetic"}).opened() as found:
        yield found


def test_every_recipe_gives_the_model_on_disk(tmp_path: Path, refs: list[MemberRef], opened: Opened) -> None:
    from sentence_transformers import SentenceTransformer

    live = SentenceTransformer(refs[0].path, device="cpu")
    merger = LiveMerger(live, opened, threads=2)
    for config in [*CONFIGS, CONFIGS[0]]:
        task = job(tmp_path, refs, config)
        folder = merge_here(task).local() / MODEL
        merger.apply(task.recipe)
        stored = load_file(folder / "model.safetensors")
        found = targets(live, opened.members[0])
        assert found.keys() == stored.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items()), config
    texts = ["sort the list", "a cat on the tree"]
    wanted = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert (live.encode(texts) == wanted).all()
    merger.close()


def test_arithmetic_in_the_stored_type_leaves_what_is_held(
    tmp_path: Path, refs: list[MemberRef], opened: Opened
) -> None:
    from sentence_transformers import SentenceTransformer

    live = SentenceTransformer(refs[0].path, device="cpu")
    merger = LiveMerger(live, opened)
    task = job(tmp_path, refs, {"method": "task_arithmetic", "merge_dtype": "float32"})
    stored = load_file(merge_here(task).local() / MODEL / "model.safetensors")
    for _ in range(2):
        merger.apply(task.recipe)
        found = targets(live, opened.members[0])
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())
    merger.close()


def test_plain_modules_and_16_bit_models(refs: list[MemberRef], opened: Opened, tmp_path: Path) -> None:
    from transformers import AutoModel

    live = AutoModel.from_pretrained(refs[0].path, dtype=torch.bfloat16)
    task = job(tmp_path, refs, {"method": "linear"})
    merger = LiveMerger(live, opened)
    merger.apply(task.recipe)
    stored = load_file(merge_here(task).local() / MODEL / "model.safetensors")
    assert all(
        torch.equal(value, stored[name].to(torch.bfloat16)) for name, value in targets(live, opened.members[0]).items()
    )


def test_what_does_not_fit_is_named(
    refs: list[MemberRef], opened: Opened, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    with pytest.raises(MergeError, match=r"no tensor embeddings\.LayerNorm\.bias, which member m1"):
        LiveMerger(torch.nn.Linear(2, 2), opened)
    live = torch.nn.Linear(3, 2)
    folder = write_model("x", {"weight": torch.ones(3, 3), "bias": torch.ones(2)})
    inputs = MergeInputs([MemberRef("x", str(folder), "", 1)])
    task = MergeJob(Store(tmp_path), inputs, MergeConfig(method="linear"))
    with task.opened() as other, pytest.raises(MergeError, match=r"\[3, 3\] in x and \[2, 3\] in the live model"):
        LiveMerger(live, other)
    with job(tmp_path, refs, {"method": "linear"}).opened() as alone:
        merger = LiveMerger(__import__("transformers").AutoModel.from_pretrained(refs[0].path), alone)
        with pytest.raises(MergeError, match="task_arithmetic needs the base"):
            merger.apply(job(tmp_path, refs, {"method": "task_arithmetic"}).recipe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_within_rounding_of_the_cpu(tmp_path: Path, refs: list[MemberRef], opened: Opened) -> None:
    from sentence_transformers import SentenceTransformer

    here, there = SentenceTransformer(refs[0].path, device="cpu"), SentenceTransformer(refs[0].path, device="cuda")
    mergers = LiveMerger(here, opened), LiveMerger(there, opened)
    for config in CONFIGS:
        for merger in mergers:
            merger.apply(job(tmp_path, refs, config).recipe)
        wanted = targets(here, opened.members[0])
        for name, value in targets(there, opened.members[0]).items():
            torch.testing.assert_close(value.cpu(), wanted[name], rtol=1e-5, atol=1e-7)
