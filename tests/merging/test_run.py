"""The stage: complete folders that sentence-transformers loads, artifacts, errors that leave nothing, Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig
from boom_ray.errors import MergeError, ModelError
from boom_ray.events import Event
from boom_ray.merging import groups
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge, merge_here, release
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Artifact, Store
from tests.plain_model import WriteModel
from tests.tiny_model import make_tiny_model

Ref = Callable[..., MemberRef]
LINEAR = MergeConfig(method="linear")
TASK = MergeConfig(method="task_arithmetic")


def merged(store: Store, members: list[MemberRef], base: MemberRef | None, config: MergeConfig) -> Artifact:
    return merge_here(MergeJob(store, MergeInputs(members, base), config))


@pytest.fixture
def bags(write_model: WriteModel, ref: Ref) -> list[MemberRef]:
    """Base and two members; the base comes first."""
    return [
        ref(write_model(name, {"w": torch.full((2, 2), float(value))}))
        for name, value in zip("abc", (0, 1, 3), strict=True)
    ]


def test_merge_is_the_models_folder_and_its_fingerprint(tmp_path: Path, bags: list[MemberRef]) -> None:
    artifact = merged(Store(tmp_path / "store"), bags[1:], bags[0], LINEAR)
    folder = artifact.local() / MODEL
    assert torch.equal(load_file(folder / "model.safetensors")["w"], torch.full((2, 2), 2.0))
    assert artifact.kind == "merge" and artifact.fingerprint == weights_fingerprint(folder)
    assert artifact.spec["weights"] == [0.5, 0.5] and artifact.inputs["base"] is None
    assert artifact.figures["coefficients"]["b"] == {"least": 0.5, "most": 0.5}
    assert (folder / "1_Pooling" / "config.json").exists()
    json.dumps(artifact.figures, allow_nan=False)


def test_only_what_matters_makes_another_merge(tmp_path: Path, bags: list[MemberRef], ref: Ref) -> None:
    store = Store(tmp_path / "store")
    first = merged(store, bags[1:], bags[0], LINEAR)
    equal = LINEAR.model_copy(update={"weights": (3.0, 3.0), "chunk_mb": 1, "cpus": 2})
    assert merged(store, bags[1:], bags[2], equal).key == first.key
    others = [
        merged(store, bags[1:], bags[0], LINEAR.model_copy(update={"weights": (1.0, 2.0)})),
        merged(store, bags[:2], bags[0], LINEAR),
        merged(store, bags[1:], bags[0], TASK),
        merged(store, bags[1:], bags[2], TASK),
    ]
    for name in ("b", "c"):
        (Path(bags[0].path).parent / name / "1_Pooling" / "config.json").write_text("{}")
    others.append(merged(store, bags[1:], bags[0], LINEAR))
    assert len({first.key, *(other.key for other in others)}) == 6


def test_sizes_of_bags_as_weights(tmp_path: Path, bags: list[MemberRef], ref: Ref) -> None:
    sized = [ref(Path(bags[1].path), examples=300), ref(Path(bags[2].path), examples=100)]
    artifact = merged(Store(tmp_path / "store"), sized, bags[0], MergeConfig(method="linear", weights="size"))
    assert torch.equal(load_file(artifact.local() / MODEL / "model.safetensors")["w"], torch.full((2, 2), 1.5))


def test_dense_modules_are_merged_too_and_types_are_written(tmp_path: Path, write_model: WriteModel, ref: Ref) -> None:
    def model(name: str, value: float) -> MemberRef:
        tensors, dense = (
            {"w": torch.full((2,), float(value))},
            {"2_Dense": {"linear.weight": torch.full((3,), 2.0 * value)}},
        )
        return ref(write_model(name, tensors, modules=dense))

    config = MergeConfig(method="multislerp", output_dtype="bfloat16")
    artifact = merged(Store(tmp_path / "store"), [model("x", 1), model("y", 2)], model("z", 0), config)
    folder = artifact.local() / MODEL
    dense = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]
    assert torch.equal(dense, torch.full((3,), 3.0, dtype=torch.bfloat16))
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("damage", ["nan", "truncated", "shape", "pickle", "integers"])
def test_an_error_leaves_no_output_behind(
    tmp_path: Path, write_model: WriteModel, ref: Ref, bags: list[MemberRef], damage: str
) -> None:
    tensors = {
        "nan": {"w": torch.full((2, 2), torch.nan)},
        "shape": {"w": torch.ones(2, 3)},
        "integers": {"w": torch.ones(2, 2).long()},
    }.get(damage, {"w": torch.ones(2, 2)})
    bad = ref(write_model("bad", tensors))
    weights = Path(bad.path) / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    if damage == "pickle":
        weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises((MergeError, ModelError), match="bad"):
        merged(Store(tmp_path / "store"), [bags[1], bad], bags[0], LINEAR)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file() or path.name.startswith(".")] == []


def test_release_adds_the_card_and_shares_the_weights(tmp_path: Path, bags: list[MemberRef]) -> None:
    store = Store(tmp_path / "store")
    made = merged(store, bags[1:], bags[0], LINEAR)
    released = release(store, made, "# Card\n")
    assert released.kind == "release" and released.fingerprint == made.fingerprint
    assert (released.local() / MODEL / "README.md").read_text() == "# Card\n"
    assert weights_fingerprint(released.local() / MODEL) == made.fingerprint
    assert (released.local() / MODEL / "model.safetensors").samefile(made.local() / MODEL / "model.safetensors")
    assert not (made.local() / MODEL / "README.md").exists()
    assert release(store, made, "# Card\n") == released
    assert release(store, made, "# Other\n").key != released.key


@pytest.mark.parametrize(
    "config", [LINEAR, MergeConfig(), MergeConfig(base="base"), MergeConfig(output_dtype="bfloat16")]
)
def test_sentence_transformers_loads_and_encodes(tmp_path: Path, ref: Ref, config: MergeConfig) -> None:
    from sentence_transformers import SentenceTransformer

    base = make_tiny_model(tmp_path / "base", seed=0)
    members = []
    for index in (1, 2):
        folder = make_tiny_model(tmp_path / f"bag{index}", seed=0)
        tensors = load_file(folder / "model.safetensors")
        generator = torch.Generator().manual_seed(index)
        noise = {name: 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
        save_file(
            {name: tensors[name] + noise[name] for name in tensors}, folder / "model.safetensors", {"format": "pt"}
        )
        members.append(ref(folder))
    folder = merged(Store(tmp_path / "store"), members, ref(base), config).local() / MODEL
    texts = ["sort the list", "a cat on the tree"]
    model = SentenceTransformer(str(folder), device="cpu")
    wanted = torch.bfloat16 if config.output_dtype == "bfloat16" else torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {wanted}
    found = torch.from_numpy(model.encode(texts)).float()
    near = torch.from_numpy(SentenceTransformer(str(base), device="cpu").encode(texts))
    cosines = (found * near).sum(dim=1)
    assert found.shape == (2, 32) and bool((cosines > 0.98).all()) and not torch.equal(found, near)


@pytest.mark.ray
def test_as_a_ray_task(
    ray_cluster: None,
    tmp_path: Path,
    bags: list[MemberRef],
    write_model: WriteModel,
    ref: Ref,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, events = Store(tmp_path / "store"), []
    here = merged(Store(tmp_path / "other"), bags[1:], bags[0], MergeConfig())
    there = merge(store, MergeInputs(bags[1:], bags[0]), MergeConfig(), events.append)
    assert (there.key, there.fingerprint) == (here.key, here.fingerprint)
    assert [(event.done, event.note) for event in events] == [(16, "")]
    assert merge(store, MergeInputs(bags[1:], bags[0]), MergeConfig(), events.append) == there
    assert events[-1].note == "cached"

    monkeypatch.setattr(groups, "LONG_BYTES", 0)
    streamed: list[Event] = []
    merge(store, MergeInputs(bags[1:], bags[0]), LINEAR, streamed.append)
    assert len(streamed) == 2 and streamed[0].done == streamed[0].total == 16
    broken = ref(write_model("broken", {"w": torch.full((2, 2), torch.nan)}))
    with pytest.raises(MergeError, match="Tensor w of broken"):
        merge(store, MergeInputs([bags[1], broken], bags[0]), LINEAR)
