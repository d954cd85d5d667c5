from __future__ import annotations

import threading
import time

from boom_ray.store import Store
from boom_ray.training.lease import lease


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
        with lease(store, "k", give_up, fresh_s=0.4) as second:
            assert not second
        with lease(store, "other", never) as third:
            assert third
    assert not list((tmp_path / "training").glob("k.lease"))
    with lease(store, "k", never) as again:
        assert again


def test_a_lease_that_nobody_refreshes_is_taken_over(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "k.lease").write_text(f'{{"owner": "gone", "time": {time.time() - 100}}}')
    with lease(store, "k", never) as ours:
        assert ours
    (tmp_path / "training" / "k.lease").write_text("half writ")
    with lease(store, "k", never) as ours:
        assert ours


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
