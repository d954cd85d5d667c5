"""The models of a merge: what a path may be, how they are called, and how they are told apart."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from boom_ray.config import MergeJobConfig
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError, ModelError
from boom_ray.flows import ingredients
from boom_ray.flows.ingredients import HASHED, find_models, with_fingerprints
from boom_ray.model.folder import weights_fingerprint
from boom_ray.store import Artifact, Store
from tests.plain_model import write_plain_model


def job(members: list[Any], **changes: Any) -> MergeJobConfig:
    return validate(MergeJobConfig, {"name": "x", "members": members, **changes}, "test")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_plain_model(tmp_path / "one", {"w": torch.ones(3)})


def member(store: Store, value: float, kind: str = "member") -> Artifact:
    """An artifact with a model, as training leaves it."""

    def build(draft: Any) -> None:
        write_plain_model(draft.path / "model", {"w": torch.full((3,), value)})
        draft.fingerprint = weights_fingerprint(draft.path / "model")
        draft.figures = {"examples": 40, "weights": "weights of the base"}

    return store.materialize(kind, {"value": value}, {}, build)


def test_members_are_called_by_their_folders_and_never_alike(store, tmp_path):
    folders = [write_plain_model(tmp_path / name, {"w": torch.ones(1)}) for name in ("a/model", "b/model", "c/base")]
    config = job([*map(str, folders), {"path": str(folders[0]), "name": "model-2"}])
    assert [ref.name for ref in find_models(store, config).members] == ["model", "model-3", "base-2", "model-2"]


def test_paths_are_absolute_and_home_is_known(store, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    found = find_models(store, job(["one", "./one/", "~/one"], base="one", model={"pooling": "cls"}))
    assert {ref.path for ref in [*found.members, found.base]} == {str(folder)}
    assert (found.base.name, found.pooling) == ("base", "cls")


def test_an_artifact_is_found_by_the_beginning_of_its_key(store):
    made = member(store, 1.0)
    for path in (f"artifact:member/{made.key}", f"artifact:member/{made.key[:6]}", f"artifact:member/{made.key}/model"):
        (ref,) = find_models(store, job([path])).members
        assert ref == ingredients.MemberRef(f"member-{made.key[:6]}", made.place("model"), made.fingerprint, 40)


def test_a_base_artifact_is_known_by_its_weights(store):
    base = member(store, 2.0, "base")
    (ref,) = find_models(store, job([f"artifact:base/{base.key}"])).members
    assert ref.fingerprint == "weights of the base" != base.fingerprint


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("artifact:member", ConfigError, "not of the form artifact:KIND/KEY"),
        ("artifact:member/xyz", ConfigError, "not of the form"),
        ("artifact:member/000000", ModelError, "has no artifact member/000000. Models in"),
        ("artifact:merge/abcdef", ModelError, "members.0.path: the store"),
        ("/nowhere/at/all", ModelError, "at/all does not exist. Give members.0.path an existing"),
        ("embedded:nothing", ModelError, "There is no embedded model"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(store, path, error, text):
    made = member(store, 1.0)
    with pytest.raises(error) as caught:
        find_models(store, job([path]))
    assert text in str(caught.value)
    if path.startswith("artifact:"):
        assert f"member/{made.key}" in str(caught.value)


def test_an_artifact_without_a_model_and_an_ambiguous_key(store, monkeypatch):
    corpus = store.materialize("corpus", {}, {}, lambda draft: (draft.path / "x").write_text("x"))
    with pytest.raises(ModelError, match=r"holds no model\. There are no models in"):
        find_models(store, job([f"artifact:corpus/{corpus.key}"]))
    monkeypatch.setattr(store, "finished", lambda kind: [(kind, "abcdef01" * 4), (kind, "abcdef02" * 4)])
    with pytest.raises(ModelError, match="2 artifacts begin with artifact:member/abcdef"):
        find_models(store, job(["artifact:member/abcdef"]))


def test_sizes_as_weights_need_sizes(store, folder):
    made = member(store, 1.0)
    merge = {"weights": "size"}
    found = find_models(store, job([f"artifact:member/{made.key}", {"path": str(folder), "examples": 5}], merge=merge))
    assert [ref.examples for ref in found.members] == [40, 5]
    with pytest.raises(ConfigError, match=r"number of examples of one; set members.1.examples"):
        find_models(store, job([f"artifact:member/{made.key}", str(folder)], merge=merge))


def test_folders_are_hashed_once(store, folder, monkeypatch):
    monkeypatch.setattr(ingredients, "SETTLED_S", -1e9)
    found = find_models(store, job([str(folder)]))
    assert found.members[0].fingerprint == ""
    assert with_fingerprints(store, found, compute=False).members[0].fingerprint == ""
    assert not Path(store.root).exists(), "looking writes nothing"
    hashed = with_fingerprints(store, found)
    assert hashed.members[0].fingerprint == weights_fingerprint(folder)
    monkeypatch.setattr(ingredients, "weights_fingerprint", lambda folder: pytest.fail("read again"))
    assert with_fingerprints(store, found) == with_fingerprints(store, found, compute=False) == hashed


def test_a_changed_folder_is_hashed_again_even_if_it_looks_as_old(store, folder, monkeypatch):
    monkeypatch.setattr(ingredients, "SETTLED_S", -1e9)
    found = find_models(store, job([str(folder)]))
    state = (folder / "model.safetensors").stat()
    before = with_fingerprints(store, found).members[0].fingerprint
    time.sleep(0.05)  # of the file system's clock
    write_plain_model(folder, {"w": torch.zeros(3)})
    os.utime(folder / "model.safetensors", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert with_fingerprints(store, found).members[0].fingerprint not in ("", before)


def test_the_fingerprint_of_a_file_that_has_just_changed_is_not_kept(store, folder, monkeypatch):
    monkeypatch.setattr(ingredients, "SETTLED_S", 1e9)
    with_fingerprints(store, find_models(store, job([str(folder)])))
    assert store.finished(HASHED) == []
