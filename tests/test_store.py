from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions

from boom_ray.errors import DataError, StoreError
from boom_ray.store import MANIFEST, Artifact, Draft, Store, artifact_key

SPEC = {"a": 1}
INPUTS = {"corpus": "abc"}


def build(draft: Draft) -> None:
    (draft.path / "deep").mkdir()
    (draft.path / "deep" / "data.bin").write_bytes(b"0123456789")
    (draft.path / "note.txt").write_text("hello")
    draft.figures["rows"] = 3


def make(store: Store) -> Artifact:
    return store.materialize("thing", SPEC, INPUTS, build)


def refuse(draft: Draft) -> None:
    raise AssertionError("built again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def place(store: Store) -> Path:
    return Path(store.location("thing", artifact_key("thing", SPEC, INPUTS)))


def test_an_artifact_says_what_it_is_and_is_built_once(store: Store) -> None:
    made = make(store)
    assert made.files == {"deep/data.bin": 10, "note.txt": 5}
    assert (made.spec, made.inputs, made.figures, made.fingerprint) == (SPEC, INPUTS, {"rows": 3}, made.key)
    assert (made.local() / "deep" / "data.bin").read_bytes() == b"0123456789"
    assert store.materialize("thing", SPEC, INPUTS, refuse) == made
    assert store.get("thing", made.key) == made
    assert store.get("other", made.key) is None


def test_everything_that_determines_content_is_in_the_key() -> None:
    keys = {
        artifact_key("thing", SPEC, INPUTS),
        artifact_key("other", SPEC, INPUTS),
        artifact_key("thing", SPEC | {"a": 2}, INPUTS),
        artifact_key("thing", SPEC, {"corpus": "abd"}),
        artifact_key("thing", SPEC, INPUTS, version=2),
    }
    assert len(keys) == 5
    assert artifact_key("thing", {"b": 1, "a": 2}, {}) == artifact_key("thing", {"a": 2, "b": 1}, {})


def test_a_fingerprint_set_by_the_stage_is_kept(store: Store) -> None:
    def with_fingerprint(draft: Draft) -> None:
        draft.fingerprint = "content-hash"

    assert store.materialize("thing", SPEC, INPUTS, with_fingerprint).fingerprint == "content-hash"


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    def fail(draft: Draft) -> None:
        build(draft)
        raise DataError("row 3 is bad")

    with pytest.raises(DataError, match="row 3 is bad"):
        store.materialize("thing", SPEC, INPUTS, fail)
    assert list((Path(store.root) / "thing").iterdir()) == []
    assert make(store).files


def test_files_without_a_manifest_are_no_artifact_and_do_not_stand_in_the_way(store: Store) -> None:
    """The manifest is written last, so this is what a writer killed before it, or a killed ``rm -r``, leaves."""
    made = make(store)
    (place(store) / MANIFEST).unlink()
    assert store.get("thing", made.key) is None
    assert make(store) == made


@pytest.mark.parametrize("harm", ["truncated", "longer", "missing"])
def test_a_damaged_file_is_noticed_set_aside_and_built_again(
    store: Store, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(store)
    path = place(store) / "deep" / "data.bin"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(b"01234" if harm == "truncated" else b"0" * 11)
    assert make(store) == made
    assert (made.local() / "deep" / "data.bin").read_bytes() == b"0123456789"
    assert f"Artifact thing/{made.key} is damaged and will be built again: deep/data.bin" in caplog.text
    assert len(list((Path(store.root) / "thing").glob("*.damaged-*"))) == 1


@pytest.mark.parametrize(
    "text", ["", '{"kind": "thi', "[]", "null", "{}", '{"files": []}', '{"files": {"a": "x"}}', "\x00" * 40]
)
def test_a_damaged_manifest_counts_as_none(store: Store, text: str, caplog: pytest.LogCaptureFixture) -> None:
    made = make(store)
    (place(store) / MANIFEST).write_text(text)
    assert store.get("thing", made.key) is None
    assert f"{MANIFEST} is damaged" in caplog.text
    assert make(store) == made


@pytest.mark.parametrize("field", ["spec", "inputs", "figures", "fingerprint", "files"])
def test_a_manifest_without_a_field_counts_as_none(store: Store, field: str) -> None:
    made = make(store)
    manifest = json.loads((place(store) / MANIFEST).read_text())
    (place(store) / MANIFEST).write_text(json.dumps({name: manifest[name] for name in manifest if name != field}))
    assert store.get("thing", made.key) is None


def _write_many(root: str, barrier: Any, results: Any) -> None:
    store = Store(root)
    for round_ in range(20):
        barrier.wait(30)
        results.put(store.materialize("thing", {"round": round_}, {}, build).files)


def test_two_processes_that_write_one_key_never_corrupt_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_write_many, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for writer in writers:
        writer.start()
    found = [results.get(timeout=60) for _ in range(40)]
    for writer in writers:
        writer.join(30)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert found == [{"deep/data.bin": 10, "note.txt": 5}] * 40
    left = [path.name for path in (tmp_path / "thing").iterdir()]
    assert sorted(left) == sorted(artifact_key("thing", {"round": number}, {}) for number in range(20))


def test_the_second_of_two_writers_keeps_the_first_result(store: Store) -> None:
    def slow(draft: Draft) -> None:
        build(draft)
        make(store)  # another writer finishes first
        (draft.path / "note.txt").write_text("later")

    made = store.materialize("thing", SPEC, INPUTS, slow)
    assert (made.local() / "note.txt").read_text() == "hello"
    assert [path.name for path in (Path(store.root) / "thing").iterdir()] == [made.key]


def _die_while_building(store: Store) -> None:
    def die(draft: Draft) -> None:
        build(draft)
        os.kill(os.getpid(), signal.SIGKILL)

    store.materialize("thing", {"killed": True}, {}, die)


@pytest.mark.parametrize("root", ["store", "memory://killed"])
def test_the_next_draft_removes_what_a_killed_writer_left(tmp_path: Path, root: str) -> None:
    store = Store(tmp_path / root if "://" not in root else root, scratch=tmp_path / "scratch")
    folder = Path(store.root) / "thing" if store.is_local else store.scratch
    living = store.draft("thing", "living")
    writer = multiprocessing.get_context("fork").Process(target=_die_while_building, args=(store,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    (left,) = [path for path in folder.iterdir() if path != living.path]
    assert (left / "note.txt").read_text() == "hello"
    mine = store.draft("thing", "mine")
    assert set(folder.iterdir()) == {living.path, mine.path}


class TestNoSpaceOrPermission:
    def test_a_store_below_a_regular_file_cannot_be_written_or_read(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        store = Store(tmp_path / "file" / "store")
        with pytest.raises(StoreError, match=r"cannot be written: .*store=PATH"):
            store.check_writable()
        with pytest.raises(StoreError, match=r"file/store cannot be written"):
            store.draft("thing", "key")
        with pytest.raises(StoreError, match="cannot be"):
            make(store)

    def test_check_writable_leaves_nothing_behind(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.check_writable()
        assert list(Path(store.root).iterdir()) == []

        def full(path: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store.fs, "rm_file", full)
        with pytest.raises(StoreError, match="No space left"):
            store.check_writable()

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
    @pytest.mark.parametrize("in_ray_task", [False, True])
    def test_a_full_disk_during_a_build_is_a_store_error(self, store: Store, code: int, in_ray_task: bool) -> None:
        def fill(draft: Draft) -> None:
            error = OSError(code, "the disk says no")
            if in_ray_task:
                raise ray.exceptions.RayTaskError("task", "Traceback…", error).as_instanceof_cause()
            raise error

        with pytest.raises(StoreError, match=r"Writing thing .*the disk says no\. What was finished") as caught:
            store.materialize("thing", SPEC, INPUTS, fill)
        assert "Traceback" not in str(caught.value)
        assert list((Path(store.root) / "thing").iterdir()) == []

    def test_a_full_disk_while_committing_is_a_store_error(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path, *arguments: Any, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        def build_then_fill(draft: Draft) -> None:
            build(draft)
            monkeypatch.setattr(Path, "write_text", full)

        with pytest.raises(StoreError, match=r"No space left on device"):
            store.materialize("thing", SPEC, INPUTS, build_then_fill)
        monkeypatch.undo()
        assert make(store).figures == {"rows": 3}

    def test_no_permission_below_the_root_is_a_store_error(self, store: Store) -> None:
        def forbidden(draft: Draft) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(draft.path / "data.bin"))

        with pytest.raises(StoreError, match="Permission denied"):
            store.materialize("thing", SPEC, INPUTS, forbidden)

    @pytest.mark.parametrize(
        "error",
        [
            PermissionError(errno.EACCES, "Permission denied", "/data/secret.jsonl"),
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/missing.jsonl"),
            IsADirectoryError(errno.EISDIR, "Is a directory", "/data"),
            ConnectionError("the hub does not answer"),
        ],
    )
    def test_trouble_with_the_users_files_is_none_of_the_store(self, store: Store, error: OSError) -> None:
        def read(draft: Draft) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            store.materialize("thing", SPEC, INPUTS, read)
        assert caught.value is error

    def test_an_unknown_protocol_is_a_store_error(self) -> None:
        with pytest.raises(StoreError, match="nosuch://bucket cannot be opened"):
            Store("nosuch://bucket")


def test_relative_and_url_roots_name_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = make(Store("store"))
    assert Store(f"file://{tmp_path}/store").get("thing", made.key) == made
    assert Store(tmp_path / "store" / "").root == str(tmp_path / "store")


def test_an_artifact_is_found_by_its_place_on_any_store(tmp_path: Path) -> None:
    def build(draft: Draft) -> None:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "a.txt").write_text("text")

    for root in (tmp_path / "store", "memory://places"):
        store = Store(root)
        place = store.materialize("member", {"n": 1}, {}, build).place("model")
        assert (Store(root).resolve(place) / "a.txt").read_text() == "text"
    assert Store(tmp_path).resolve(str(tmp_path)) == tmp_path
    with pytest.raises(StoreError, match="Artifact member/00 is missing"):
        Store(tmp_path).resolve("artifact:member/00/model")


def test_finished_artifacts_are_listed_by_kind(tmp_path):
    store = Store(tmp_path / "store")
    assert store.finished() == []
    one = store.materialize("merge", {"n": 1}, {}, lambda draft: None)
    two = store.materialize("member", {"n": 2}, {}, lambda draft: None)
    (tmp_path / "store" / "merge" / ".draft-0123" / "model").mkdir(parents=True)
    (tmp_path / "store" / "merge" / f"{one.key}.damaged-01234567").mkdir()
    (tmp_path / "store" / "merge" / f"{one.key}.damaged-01234567" / "artifact.json").write_text("{}")
    assert store.finished() == [("member", two.key), ("merge", one.key)]
    assert store.finished("merge") == [("merge", one.key)] and store.finished("none") == []
