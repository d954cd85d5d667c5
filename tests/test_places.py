from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from boom_ray.disk import MANIFEST
from boom_ray.places import first_fault, put, take_back, try_writing


@pytest.fixture
def fs() -> Any:
    return fsspec.filesystem("memory")


@pytest.fixture
def place(fs: Any, tmp_path: Path) -> str:
    (tmp_path / "a").write_text("aaa")
    for name in ("a", "deep/a", "deep/er/a"):
        put(fs, tmp_path / "a", f"/places{tmp_path}/thing/key", name)
    return f"/places{tmp_path}/thing/key"


def test_an_emptied_place_goes_and_its_neighbours_stay(fs: Any, place: str, tmp_path: Path) -> None:
    put(fs, tmp_path / "a", place.replace("key", "other"), "a")
    take_back(fs, place, ["a", "deep/a", "deep/er/a", "never/there"])
    assert not fs.exists(place)
    assert fs.exists(place.replace("key", "other") + "/a")


def test_files_that_are_not_named_stay(fs: Any, place: str) -> None:
    take_back(fs, place, ["a", "deep/a"])
    assert fs.find(place) == [f"{place}/deep/er/a"]


def test_a_finished_artifact_stays_whole(fs: Any, place: str) -> None:
    fs.pipe_file(f"{place}/{MANIFEST}", b"{}")
    take_back(fs, place, ["a", "deep/a"])
    assert len(fs.find(place)) == 4


def test_a_store_that_fails_while_taking_back_is_no_error(fs: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = fs.rm_file

    def flaky(path: str) -> None:
        if path.endswith("/deep/a"):
            raise RuntimeError("throttled")
        remove(path)

    monkeypatch.setattr(fs, "rm_file", flaky)
    take_back(fs, place, ["a", "deep/a", "deep/er/a"])
    assert fs.find(place) == [f"{place}/deep/a"]


def test_the_first_fault_names_the_file(fs: Any, place: str) -> None:
    assert first_fault(fs, place, {"a": 3, "deep/a": 3}) is None
    assert first_fault(fs, place, {"a": 3, "deep/a": 4}) == "deep/a has 3 bytes instead of 4"
    assert first_fault(fs, place, {"none": 1, "deep/a": 4}) == "none is missing"


def test_trying_leaves_nothing(fs: Any, tmp_path: Path) -> None:
    try_writing(fs, f"/tried{tmp_path}")
    assert fs.find(f"/tried{tmp_path}") == []
