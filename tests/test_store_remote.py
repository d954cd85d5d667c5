"""Stores that cannot rename: object stores, and the copies that machines keep of their artifacts."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from boom_ray.errors import DataError, StoreError
from boom_ray.store import MANIFEST, Artifact, Draft, Store, artifact_key
from tests.test_store import INPUTS, SPEC, build, make, refuse


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("BOOM_CACHE_DIR", str(tmp_path / "cache"))
    return Store(f"memory://{tmp_path.name}/store", scratch=tmp_path / "scratch")


def test_round_trip(remote: Store, tmp_path: Path) -> None:
    remote.check_writable()
    made = make(remote)
    assert made.uri.startswith("memory://")
    assert remote.materialize("thing", SPEC, INPUTS, refuse) == made
    folder = made.local()
    assert folder == tmp_path / "cache" / "thing" / made.key
    assert (folder / "deep" / "data.bin").read_bytes() == b"0123456789"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_manifest_is_uploaded_last(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[str] = []
    put = remote.fs.put_file

    def watch(source: str, target: str, **options: Any) -> None:
        uploaded.append(Path(target).name)
        put(source, target, **options)

    monkeypatch.setattr(remote.fs, "put_file", watch)
    make(remote)
    assert sorted(uploaded[:-1]) == ["data.bin", "note.txt"]
    assert uploaded[-1] == MANIFEST


def test_a_truncated_object_is_built_again(remote: Store) -> None:
    made = make(remote)
    fs, path = fsspec.url_to_fs(made.uri)
    fs.pipe_file(f"{path}/deep/data.bin", b"01")
    assert remote.get("thing", made.key) is None
    assert make(remote) == made
    assert fs.cat_file(f"{path}/deep/data.bin") == b"0123456789"


def test_a_local_copy_is_used_again_and_repaired(remote: Store) -> None:
    made = make(remote)
    folder = made.local()
    fs, path = fsspec.url_to_fs(made.uri)
    fs.pipe_file(f"{path}/note.txt", b"HELLO")
    assert (made.local() / "note.txt").read_text() == "hello", "not downloaded twice"
    (folder / "note.txt").unlink()  # as cleaners of /tmp do
    assert (made.local() / "note.txt").read_text() == "HELLO"
    shutil.rmtree(folder)
    fs.rm(path, recursive=True)
    with pytest.raises(StoreError, match="cannot be copied"):
        made.local()


def test_a_failed_build_takes_its_uploads_back(remote: Store) -> None:
    def upload_then_fail(draft: Draft) -> None:
        build(draft)
        remote.upload(draft.path / "deep" / "data.bin", "thing", key, "deep/data.bin")
        draft.placed |= {"deep/data.bin": 10, "of a task that has not begun": 0}
        raise DataError("row 3 is bad")

    key = artifact_key("thing", SPEC, INPUTS)
    with pytest.raises(DataError, match="row 3 is bad"):
        remote.materialize("thing", SPEC, INPUTS, upload_then_fail)
    assert not remote.fs.exists(f"{remote._path}/thing/{key}")
    assert make(remote).files


def test_a_failed_build_leaves_what_another_writer_has_finished(remote: Store) -> None:
    def fail_second(draft: Draft) -> None:
        build(draft)
        made.append(make(remote))
        remote.upload(draft.path / "note.txt", "thing", made[0].key, "note.txt")
        draft.placed["note.txt"] = 5
        raise DataError("row 3 is bad")

    made: list[Artifact] = []
    with pytest.raises(DataError, match="row 3 is bad"):
        remote.materialize("thing", SPEC, INPUTS, fail_second)
    assert remote.get("thing", made[0].key) == made[0]


def test_a_broken_commit_takes_its_files_back(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put = remote.fs.put_file

    def lose_connection(source: str, target: str, **options: Any) -> None:
        if target.endswith(MANIFEST):
            raise OSError("connection lost")
        put(source, target, **options)

    monkeypatch.setattr(remote.fs, "put_file", lose_connection)
    with pytest.raises(StoreError, match="connection lost"):
        make(remote)
    assert remote.fs.find(remote._path) == []


def test_threads_and_processes_of_one_machine_fetch_a_file_once(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(remote)
    driver, log = type(remote.fs), tmp_path / "fetched"
    get = driver.get_file

    def slow(self: Any, source: str, target: str, **options: Any) -> None:
        with log.open("a") as stream:
            stream.write(f"{Path(source).name}\n")
        time.sleep(0.02)
        get(self, source, target, **options)

    def use(results: Any) -> None:
        with ThreadPoolExecutor(3) as pool:
            for folder in pool.map(lambda _: made.local(), range(3)):
                results.put((folder / "deep" / "data.bin").read_bytes())

    monkeypatch.setattr(driver, "get_file", slow)  # every process has an instance of its own
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    users = [context.Process(target=use, args=(results,)) for _ in range(3)]
    for user in users:
        user.start()
    found = [results.get(timeout=60) for _ in range(9)]
    for user in users:
        user.join(30)
    assert found == [b"0123456789"] * 9
    assert sorted(log.read_text().split()) == sorted(["data.bin", "note.txt", MANIFEST])


def test_a_store_travels_as_its_root(remote: Store, tmp_path: Path) -> None:
    kind, arguments = remote.__reduce__()
    assert kind(*arguments).location("a", "b") == remote.location("a", "b")
    assert kind(*arguments).scratch == tmp_path / "scratch"
