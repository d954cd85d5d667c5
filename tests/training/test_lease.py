from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from boom_ray.store import Store
from boom_ray.training.lease import _Lease, _owner, lease

pytestmark = pytest.mark.slow


def never() -> bool:
    return False


def test_one_at_a_time_and_free_again_afterwards(tmp_path):
    store = Store(tmp_path)
    asked = []

    def give_up() -> bool:
        asked.append(1)
        return len(asked) == 2

    with lease(store, "k", never) as first:
        assert first
        with lease(store, "k", give_up, fresh_s=30) as second:
            assert not second
        with lease(store, "other", never) as third:
            assert third
    assert not list((tmp_path / "training").glob("k.lease"))
    with lease(store, "k", never) as again:
        assert again


def test_a_lease_of_a_process_that_has_ended_is_taken_over_at_once(tmp_path):
    code = "import sys; from boom_ray.disk import owned_name; sys.stdout.write(owned_name())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    write(tmp_path, gone, time.time())
    with lease(Store(tmp_path), "k", wait_in_vain) as ours:
        assert ours


def test_a_lease_that_nobody_refreshes_is_taken_over_after_a_while_that_was_seen(tmp_path):
    store, asked = Store(tmp_path), []
    elsewhere = f"host-{'0' * 12}-1-1-{'0' * 8}"
    write(tmp_path, elsewhere, time.time() + 900)  # its clock is ahead

    def wait() -> bool:
        asked.append(1)
        return False

    began = time.monotonic()
    with lease(store, "k", wait, fresh_s=0.4) as ours:
        assert ours
    assert asked and time.monotonic() - began >= 0.4
    write(tmp_path, elsewhere, time.time() - 4000)
    with lease(store, "k", wait_in_vain) as ours:
        assert ours


def test_a_text_that_cannot_be_read_is_alive_until_it_stays_so(tmp_path):
    store, asked = Store(tmp_path), []
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "k.lease").write_text("half writ")
    began = time.monotonic()
    with lease(store, "k", lambda: bool(asked.append(1)), fresh_s=0.4) as ours:
        assert ours
    assert asked and time.monotonic() - began >= 0.4


def test_nobody_sees_half_a_lease(tmp_path):
    """A waiting job reads all the time while the owner refreshes all the time."""
    store, stop, texts = Store(tmp_path), threading.Event(), []
    own = _Lease(store, "k")
    assert own.take(b"", False) is None
    keeper = threading.Thread(target=own.keep, args=(stop, 0.0))
    keeper.start()
    try:
        until = time.monotonic() + 20
        while len(set(texts)) < 20 and time.monotonic() < until:
            texts.append((tmp_path / "training" / "k.lease").read_bytes())
    finally:
        stop.set()
        keeper.join(10)
    assert {json.loads(text)["owner"] for text in texts} == {own.owner}
    assert len(set(texts)) >= 20
    assert [path.name for path in (tmp_path / "training").glob("k*")] == ["k.lease"]


def test_an_owner_that_was_taken_over_does_not_take_back(tmp_path, caplog):
    own, elsewhere = _Lease(Store(tmp_path), "k"), f"host-{'0' * 12}-1-1-{'0' * 8}"
    assert own.take(b"", False) is None
    write(tmp_path, elsewhere, time.time())
    own.keep(threading.Event(), 0.0)  # returns by itself
    own.release()
    assert json.loads((tmp_path / "training" / "k.lease").read_text())["owner"] == elsewhere
    assert "another job trains this member now" in caplog.text


def test_a_store_that_fails_for_a_while_costs_no_lease(tmp_path, monkeypatch):
    own, stop, turns = _Lease(Store(tmp_path), "k"), threading.Event(), []
    assert own.take(b"", False) is None
    read = own._read

    def fails_twice() -> bytes | None:
        turns.append(1)
        if len(turns) < 3:
            raise RuntimeError("connection reset")  # remote file systems raise what they like
        stop.set()
        return read()

    monkeypatch.setattr(own, "_read", fails_twice)
    own.keep(stop, 0.0)
    assert len(turns) == 3
    assert _owner(read()) == own.owner


def test_one_that_is_refreshed_is_never_taken(tmp_path):
    store, elsewhere, turns = Store(tmp_path), f"host-{'0' * 12}-1-1-{'0' * 8}", []

    def refresh() -> bool:
        turns.append(1)
        write(tmp_path, elsewhere, time.time() + len(turns))
        return len(turns) == 12

    write(tmp_path, elsewhere, time.time())
    with lease(store, "k", refresh, fresh_s=0.4) as ours:
        assert not ours


def write(folder: Path, owner: str, at: float) -> None:
    (folder / "training").mkdir(exist_ok=True)
    (folder / "training" / "k.lease").write_text(json.dumps({"owner": owner, "time": at}))


def wait_in_vain() -> bool:
    raise AssertionError("nothing is to be waited for")


def test_of_many_that_come_at_once_one_has_it(tmp_path):
    store, inside, most, lock = Store(tmp_path), [], [], threading.Lock()

    def work() -> None:
        with lease(store, "k", never, fresh_s=30):
            with lock:
                inside.append(1)
                most.append(len(inside))
            time.sleep(0.02)
            with lock:
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1]
