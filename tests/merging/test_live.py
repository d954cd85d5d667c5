"""A live model becomes the same merge as one on disk, for every kind of method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.live import LiveMerger, targets
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.merging.stream import Known, Opened
from boom_ray.store import Store
from tests.merging.adapted import make_adapter, make_base
from tests.plain_model import WriteModel
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


def on_disk(task: MergeJob) -> dict[str, torch.Tensor]:
    """The tensors of the same merge, written."""
    return load_file(merge_here(task).local() / MODEL / "model.safetensors")


def test_recipes_of_several_arithmetics_do_not_mix(tmp_path: Path, refs: list[MemberRef], opened: Opened) -> None:
    from transformers import AutoModel

    live = AutoModel.from_pretrained(refs[0].path)
    merger, found = LiveMerger(live, opened), targets(live, opened.members[0])
    configs = [{"method": "multislerp", "base": "base"}, {"method": "ties", "parameters": {"density": 0.3}}]
    tasks = [
        job(tmp_path, refs, config | {"merge_dtype": dtype})
        for dtype in ("auto", "float32", "float64")
        for config in configs
    ]
    wanted = [on_disk(task) for task in tasks]
    assert any(not torch.equal(wanted[0][name], wanted[2][name]) for name in wanted[0])
    for task, stored in [*zip(tasks, wanted, strict=True), *zip(tasks, wanted, strict=True)]:
        merger.apply(task.recipe)
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items()), task.recipe.merge_dtype


def test_known_products_are_for_their_arithmetic_only(tmp_path: Path, refs: list[MemberRef], opened: Opened) -> None:
    from transformers import AutoModel

    live = AutoModel.from_pretrained(refs[0].path)
    found = targets(live, opened.members[0])
    known = Known({name: np.diag([1.0, 1.0, 4.0, 9.0]) for name in found}, about_base=True)
    merger = LiveMerger(live, opened, known, known_dtype="float32")
    tasks = [
        job(tmp_path, refs, {"method": "multislerp", "base": base, "merge_dtype": dtype})
        for base, dtype in (("base", "auto"), ("none", "float32"), ("base", "float32"))
    ]
    for task, right in zip(tasks, (True, True, False), strict=True):  # the known products are wrong ones
        merger.apply(task.recipe)
        assert right == all(torch.equal(found[name], tensor) for name, tensor in on_disk(task).items())


def test_histograms_are_kept_in_their_short_form(tmp_path: Path, refs: list[MemberRef], opened: Opened) -> None:
    from transformers import AutoModel

    live = AutoModel.from_pretrained(refs[0].path)
    merger, found = LiveMerger(live, opened), targets(live, opened.members[0])
    counts: list[str] = []
    for parameters in ({"density": 0.3}, {"density": 0.1}, {"density": 0.1, "scope": "model"}):
        task = job(tmp_path, refs, {"method": "ties", "parameters": parameters})
        merger.apply(task.recipe)
        assert all(torch.equal(found[name], tensor) for name, tensor in on_disk(task).items())
        assert not any("histograms" in vars(one) for one in merger._spaces.values())
        counts.append(str(sorted(merger._counted)))
    kept = [array.nbytes for arrays in merger._counted.values() for array in arrays.values()]
    assert counts[0] == counts[1] == counts[2] and len(merger._counted) == len(found)
    assert sum(kept) < 0.2 * len(found) * 3 * 2**18


@pytest.mark.parametrize("output", ["members", "float32"])
def test_adapters_over_a_16_bit_base_are_merged_as_on_disk(tmp_path: Path, output: str) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    settings = {"target_modules": ["query", "value"]}
    folders = [make_adapter(base, tmp_path / f"adapter{seed}", seed=seed, **settings) for seed in (1, 2)]
    base_ref, *refs = [MemberRef(one.name, str(one), one.name, 1) for one in (base, *folders)]
    live = SentenceTransformer(str(base), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    live = live.to(torch.bfloat16 if output == "members" else torch.float32)
    for method in ("task_arithmetic", "multislerp", "ties"):
        config = MergeConfig(method=method, output_dtype=output)
        task = MergeJob(Store(tmp_path / "store"), MergeInputs(refs, base_ref), config)
        stored = on_disk(task)
        with task.opened() as opened:
            merger = LiveMerger(live, opened)
            merger.apply(task.recipe)
            found = targets(live, opened.members[0])
            merger.close()
        assert found.keys() == stored.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in stored.items()), method


class Pair(torch.nn.Module):
    """Two parameters, by the names of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.zeros(2, dtype=torch.float16)) for _ in range(2))


@pytest.mark.parametrize("broken", ["bag1", "base"])
def test_members_that_diverged_are_named_before_anything_changes(
    tmp_path: Path, write_model: WriteModel, broken: str
) -> None:
    fine, bad = {"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2), "b": torch.tensor([1.0, torch.inf])}
    folders = [write_model(name, bad if name == broken else fine) for name in ("base", "bag0", "bag1")]
    base, *members = [MemberRef(folder.name, str(folder), folder.name, 1) for folder in folders]
    task = MergeJob(Store(tmp_path), MergeInputs(members, base), MergeConfig(method="task_arithmetic"))
    live = Pair()
    with task.opened() as opened, pytest.raises(MergeError, match=f"Tensor b of {broken} .* holds NaN or infinity"):
        LiveMerger(live, opened)
    assert not live.a.any()


def test_an_error_in_the_middle_is_made_good_by_the_next_recipe(tmp_path: Path, write_model: WriteModel) -> None:
    base, one = ({"a": torch.full((2,), v), "b": torch.full((2,), 5 * v)} for v in (0.0, 1000.0))
    folders = [write_model(name, tensors) for name, tensors in (("base", base), ("bag0", one))]
    refs = [MemberRef(folder.name, str(folder), folder.name, 1) for folder in folders]

    def scaled(scale: float) -> MergeJob:
        config = MergeConfig(method="task_arithmetic", parameters={"scale": scale})
        return MergeJob(Store(tmp_path), MergeInputs(refs[1:], refs[0]), config)

    live = Pair()
    with scaled(1).opened() as opened:
        merger = LiveMerger(live, opened)
    merger.apply(scaled(2).recipe)
    with pytest.raises(MergeError, match="Merged tensor b"):
        merger.apply(scaled(20).recipe)
    assert live.a.tolist() == [20000, 20000] and live.b.tolist() == [10000, 10000]
    merger.apply(scaled(1).recipe)
    assert live.a.tolist() == [1000, 1000] and live.b.tolist() == [5000, 5000]


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
