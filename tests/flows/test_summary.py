"""The link to the merged model."""

from __future__ import annotations

from pathlib import Path

import pytest

from boom_ray.errors import ConfigError
from boom_ray.flows.summary import check_link, link_model
from boom_ray.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "store" / "release" / "key" / "model"
    made.mkdir(parents=True)
    return made


def test_the_link_is_relative_and_moves_to_the_newest_model(folder: Path) -> None:
    store = Store(folder.parents[2])
    newer = folder.with_name("newer")
    newer.mkdir()
    for target in (folder, newer):
        check_link(store, "tiny")
        link = link_model(store, target, "tiny")
        assert link.resolve() == target and not link.readlink().is_absolute()
    assert list(link.parent.iterdir()) == [link]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_what_is_no_link_is_not_replaced_and_nothing_is_left(folder: Path, make: object) -> None:
    store = Store(folder.parents[2])
    place = folder.parents[2] / "models" / "tiny"
    place.parent.mkdir()
    make(place)
    for check in (lambda: check_link(store, "tiny"), lambda: link_model(store, folder, "tiny")):
        with pytest.raises(ConfigError, match=r"models/tiny is where the link .* another name"):
            check()
    assert list(place.parent.iterdir()) == [place] and not place.is_symlink()


def test_a_link_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        link_model(Store(folder.parents[2]), folder, "tiny")
    assert list((folder.parents[2] / "models").iterdir()) == []


def test_a_link_to_a_model_that_is_gone_may_be_replaced(folder: Path) -> None:
    store = Store(folder.parents[2])
    link = link_model(store, folder, "tiny")
    folder.rmdir()
    check_link(store, "tiny")
    folder.mkdir()
    assert link_model(store, folder, "tiny") == link


def test_stores_elsewhere_have_no_links(folder: Path) -> None:
    store = Store("memory://store")
    check_link(store, "tiny")
    assert link_model(store, folder, "tiny") == folder
