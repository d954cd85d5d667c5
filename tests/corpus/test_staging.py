from __future__ import annotations

import os
from pathlib import Path

from boom_ray.corpus import staging
from boom_ray.disk import _machine, owned_name
from boom_ray.store import Store


def test_unfinished_passes_of_processes_that_have_ended_are_removed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    ended = f"some-host-{_machine()}-{child}-1-0123abcd"
    stays = {owned_name(), f"some-host-0123456789ab-{child}-1-0123abcd", "some-host-12-0123abcd"}
    for name in (ended, *stays):
        (tmp_path / "staging" / name / "dataset=x").mkdir(parents=True)
    staging._remove_abandoned(Store(tmp_path), str(tmp_path / "staging"))
    assert {path.name for path in (tmp_path / "staging").iterdir()} == stays
