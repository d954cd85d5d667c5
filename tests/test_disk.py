from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from boom_ray import disk
from boom_ray.disk import ABANDONED, DRAFT, MANIFEST, OWNED, copy_once, file_sizes, is_owner_gone, new_draft, owned_name

FILES = {"deep/a": 3, "b": 5}


def name_of(process: int, machine: str | None = None, started: int = 1) -> str:
    """A draft's name as another process would give it."""
    return f"{DRAFT}key-some-host-{machine or disk._machine()}-{process}-{started}-0123abcd"


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


class TestOwners:
    def test_a_living_process_is_not_gone(self) -> None:
        assert not is_owner_gone(owned_name())
        assert not is_owner_gone(owned_name(f"{DRAFT}any-key-"))
        assert owned_name() != owned_name()

    def test_a_process_that_has_ended_is_gone(self, ended: int) -> None:
        assert is_owner_gone(name_of(ended))

    def test_a_process_that_nobody_has_waited_for_is_gone(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", "from boom_ray.disk import owned_name; print(owned_name())"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        name = child.stdout.read().decode().strip()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and stays in the table of processes
        os.kill(child.pid, 0)
        assert f"-{child.pid}-" in name and is_owner_gone(name)
        child.wait()

    def test_a_later_process_with_the_same_number_is_another(self) -> None:
        started = disk._status(os.getpid())[1]
        assert started > 0
        assert not is_owner_gone(name_of(os.getpid(), started=started))
        assert is_owner_gone(name_of(os.getpid(), started=started + 1))

    def test_without_a_start_the_number_decides(self, monkeypatch: pytest.MonkeyPatch, ended: int) -> None:
        monkeypatch.setattr(disk, "_status", lambda process: ("", 0))  # as on systems without /proc
        assert not is_owner_gone(owned_name())
        assert is_owner_gone(name_of(ended, started=0))

    def test_another_users_process_is_alive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(process: int, signal: int) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        name = owned_name()
        monkeypatch.setattr(os, "kill", forbidden)
        assert not is_owner_gone(name)

    def test_processes_of_other_machines_and_containers_cannot_be_judged(self, ended: int) -> None:
        assert not is_owner_gone(name_of(ended, "0123456789ab"))

    def test_hosts_boots_and_namespaces_are_different_machines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = {disk._machine(), disk._machine()}
        for target, value in (
            ("socket.gethostname", lambda: "another-host"),
            ("pathlib.Path.read_text", lambda path, **_: "another boot"),
            ("pathlib.Path.readlink", lambda path: Path("another namespace")),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(target, value)
                seen.add(disk._machine())
        assert len(seen) == 4

    @pytest.mark.parametrize(
        "name", ["", ".draft-0123", ".draft-0123456789ab-abcd1234", "host-12-0123abcd", "a-b-c-d-e"]
    )
    def test_other_names_are_nobodys(self, name: str) -> None:
        assert not is_owner_gone(name)

    def test_a_name_tells_host_and_process(self) -> None:
        owned = OWNED.fullmatch(owned_name(f"{DRAFT}key-"))
        assert owned is not None and int(owned["process"]) == os.getpid()


def age(folder: Path, seconds: float) -> None:
    when = folder.stat().st_mtime - seconds
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (when, when))


class TestDrafts:
    def test_only_what_ended_processes_left_is_removed(self, tmp_path: Path, ended: int) -> None:
        mine = new_draft(tmp_path, label="key")
        stays = [
            mine.name,
            name_of(ended, "0123456789ab"),
            f"{DRAFT}0123",
            "a" * 32,
            name_of(ended).replace(DRAFT, "x"),
        ]
        for name in [*stays, name_of(ended)]:
            (tmp_path / name / "model").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "model" / "weights").write_text("many")
        other = new_draft(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*stays, other.name}
        assert all((tmp_path / name / "model" / "weights").read_text() == "many" for name in stays)

    def test_other_machines_drafts_go_when_nothing_was_written_for_a_week(self, tmp_path: Path) -> None:
        idle, busy, young = (tmp_path / name_of(number, "0123456789ab") for number in (1, 2, 3))
        strange = tmp_path / f"{DRAFT}of-another-program"
        for folder in (idle, busy, young, strange):
            (folder / "model").mkdir(parents=True)
            (folder / "model" / "weights").write_text("many")
            age(folder, ABANDONED - 60 if folder == young else ABANDONED + 60)
        os.utime(busy / "model" / "weights")
        draft = new_draft(tmp_path)
        assert set(tmp_path.iterdir()) == {busy, young, strange, draft}

    def test_own_idle_drafts_stay(self, tmp_path: Path) -> None:
        mine = new_draft(tmp_path)
        age(mine, 10 * ABANDONED)
        other = new_draft(tmp_path)
        assert set(tmp_path.iterdir()) == {mine, other}

    def test_prefixes_are_apart(self, tmp_path: Path, ended: int) -> None:
        part = tmp_path / name_of(ended).replace(DRAFT, ".part-")
        part.mkdir()
        new_draft(tmp_path)
        assert part.exists()
        new_draft(tmp_path, ".part-")
        assert not part.exists()


class Remote:
    """Files that can be fetched; says which were."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.texts = {"deep/a": "aaa", "b": "bbbbb", MANIFEST: "{}"}

    def fetch(self, name: str, to: str) -> None:
        self.fetched.append(name)
        Path(to).write_text(self.texts[name])


class TestCopies:
    def test_the_manifest_is_fetched_last_and_nothing_twice(self, tmp_path: Path) -> None:
        remote = Remote()
        for _ in range(2):
            copy_once(tmp_path / "kind" / "key", FILES, remote.fetch)
        assert remote.fetched == ["deep/a", "b", MANIFEST]
        assert file_sizes(tmp_path / "kind" / "key") == FILES | {MANIFEST: 2}
        assert {path.name for path in (tmp_path / "kind").iterdir()} == {"key", ".key.lock"}

    def test_whoever_reads_is_not_disturbed_by_a_repair(self, tmp_path: Path) -> None:
        remote = Remote()
        copy_once(tmp_path / "key", FILES, remote.fetch)
        kept = (tmp_path / "key" / "deep" / "a").stat()
        (tmp_path / "key" / "b").write_text("cut")
        copy_once(tmp_path / "key", FILES, remote.fetch)
        assert remote.fetched == ["deep/a", "b", MANIFEST, "b", MANIFEST]
        assert (tmp_path / "key" / "b").read_text() == "bbbbb"
        after = (tmp_path / "key" / "deep" / "a").stat()
        assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)

    def test_a_failure_leaves_nothing_that_counts_and_is_continued(self, tmp_path: Path) -> None:
        remote = Remote()
        remote.texts["b"] = "short"[:4]
        with pytest.raises(OSError, match="b came with 4 bytes instead of 5"):
            copy_once(tmp_path / "key", FILES, remote.fetch)
        assert not disk.is_complete(tmp_path / "key", FILES)
        assert not list(tmp_path.glob(f"{DRAFT}*"))
        remote.texts["b"] = "bbbbb"
        copy_once(tmp_path / "key", FILES, remote.fetch)
        assert remote.fetched == ["deep/a", "b", "b", MANIFEST]

    def test_the_second_waits_for_the_first(self, tmp_path: Path) -> None:
        remote, begun, go_on = Remote(), threading.Event(), threading.Event()

        def slow(name: str, to: str) -> None:
            begun.set()
            assert go_on.wait(30)
            remote.fetch(name, to)

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(copy_once, tmp_path / "key", FILES, slow)
            assert begun.wait(30)
            second = pool.submit(copy_once, tmp_path / "key", FILES, remote.fetch)
            assert not second.done() and remote.fetched == []
            go_on.set()
            first.result(30)
            second.result(30)
        assert remote.fetched == ["deep/a", "b", MANIFEST]

    def test_without_locks_copies_cost_time_and_harm_nobody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The slower of two copies ends while the faster one's files are read."""

        def no_locks(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        target, remote, slower = tmp_path / "key", Remote(), Remote()

        def overtaken(name: str, to: str) -> None:
            if not slower.fetched:
                copy_once(target, FILES, remote.fetch)
                streams.append((target / "b").open())
            slower.fetch(name, to)

        streams: list[Any] = []
        copy_once(target, FILES, overtaken)
        assert streams[0].read() == "bbbbb"
        assert file_sizes(target) == FILES | {MANIFEST: 2}
        streams[0].close()

    def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(self, tmp_path: Path) -> None:
        remote, children = Remote(), []

        def forking(name: str, to: str) -> None:
            if not children:
                read, write = os.pipe()
                child = os.fork()
                if child == 0:
                    os.close(write)
                    os.read(read, 1)  # lives until the test is over
                    os._exit(0)
                children.append((child, read, write))
            remote.fetch(name, to)

        copy_once(tmp_path / "key", FILES, forking)
        shutil.rmtree(tmp_path / "key")
        with (tmp_path / ".key.lock").open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for child, read, write in children:
            os.close(write)
            os.waitpid(child, 0)
            os.close(read)


def harmed(code: int, name: str | None) -> OSError:
    return OSError(code, "no", name)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (lambda root: harmed(errno.ENOSPC, None), True),
        (lambda root: harmed(errno.EACCES, f"{root}/a/b"), True),
        (lambda root: harmed(errno.EACCES, "/elsewhere/b"), False),
        (lambda root: harmed(errno.EACCES, None), False),
        (lambda root: harmed(errno.ENOENT, f"{root}/a"), False),
    ],
)
def test_trouble_is_ours_when_the_disk_is_full_or_our_folder_forbidden(
    tmp_path: Path, error: Callable[[Path], OSError], ours: bool
) -> None:
    assert disk.is_trouble_below(error(tmp_path), [tmp_path]) is ours
