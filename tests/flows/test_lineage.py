"""Lineages: written once, read back, found by key and by name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from boom_ray.bags.stage import CORE
from boom_ray.errors import ConfigError, ModelError, StoreError
from boom_ray.flows.lineage import FILE, KIND, Layer, find_lineage, keep, keep_run, lineages
from boom_ray.flows.summary import link_model
from boom_ray.merging.run import MODEL
from boom_ray.store import MANIFEST, Artifact, Store
from tests.flows.lineages import lineage, run_config


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def age(store: Store, key: str, seconds: int) -> None:
    """Let a lineage be so many seconds old."""
    path = Path(store.location(KIND, key)) / MANIFEST
    os.utime(path, (1e9 - seconds, 1e9 - seconds))


def test_what_is_kept_is_read_back(store: Store) -> None:
    made = lineage()
    kept = keep(store, made)
    assert kept.key and replace(kept, key="") == made
    assert find_lineage(store, "old")[0] == kept
    assert kept.examples == {"a": 70, "b": 30}
    assert kept.members[0].ref.path == f"artifact:member/{'3' * 32}/model"
    assert kept.members[0].ref.examples == 80


def test_its_key_tells_what_it_was_made_from_and_nothing_else(store: Store) -> None:
    key = keep(store, lineage()).key
    elsewhere = run_config(store="/elsewhere", cluster={"num_cpus": 7}, tracking={"experiment": "x"})
    assert keep(store, lineage(elsewhere)).key == key
    assert len(store.finished(KIND)) == 1
    for other in (
        lineage(merged="a" * 32),
        lineage(ancestors=("b" * 32,)),
        lineage(members=lineage().members[:1]),
        lineage(layers=(Layer("old", "1" * 32, "bag/other", {"a": 70, "b": 30}),)),
        lineage(run_config(seed=1)),
        lineage(run_config(name="renamed")),
    ):
        assert keep(store, other).key != key


def test_tasks_are_found_from_any_directory(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tasks = {"in_domain": [{"name": "t", "path": "tasks/t", "type": "sts"}]}
    tasks["in_domain"].append({"name": "u", "path": "embedded:docs", "type": "retrieval"})
    monkeypatch.chdir(tmp_path)
    found = keep(store, lineage(run_config(evaluation=tasks))).config.evaluation.in_domain
    assert [task.path for task in found] == [str(tmp_path / "tasks" / "t"), "embedded:docs"]


def test_of_one_name_the_newest_is_taken_and_that_is_said(store: Store) -> None:
    first, second, third = (keep(store, lineage(run_config(seed=seed))) for seed in (1, 2, 3))
    for one, seconds in ((first, 5), (second, 500), (third, 50)):
        age(store, one.key, seconds)
    found, told = find_lineage(store, "old")
    assert found.key == first.key
    assert f"lineage/{first.key}, the newest of 3" in told
    assert told.index(third.key) < told.index(second.key)
    assert [one.key for one in lineages(store)] == [second.key, third.key, first.key]


def test_of_one_name_the_one_whose_model_is_shown_is_taken(store: Store) -> None:
    """A run that was made again under its name shows its model again, but leaves its lineage as old as it was."""
    kept = {}
    for seed, seconds in ((1, 500), (2, 5)):
        merged = store.materialize("merge", {"seed": seed}, {}, lambda draft: (draft.path / MODEL).mkdir())
        kept[seed] = keep(store, lineage(run_config(seed=seed), merged=merged.key))
        age(store, kept[seed].key, seconds)
        link_model(store, merged.local() / MODEL, "old")
        found, told = find_lineage(store, "old")
        assert found == kept[seed]
    assert f"lineage/{kept[2].key}, whose model models/old shows, of 2 of that name" in told
    link_model(store, store.get("merge", kept[1].merged).local() / MODEL, "old")
    assert find_lineage(store, "old")[0] == kept[1]


def test_a_run_s_examples_are_those_that_it_may_draw(store: Store) -> None:
    config = run_config(bags={"mixture": {"caps": {"a": 40}}})
    core = Artifact("bag", "2" * 32, "", {}, {}, {}, "", {})
    member = Artifact("member", "3" * 32, "", {}, {}, {"examples": 80, "seconds": 1.0}, "", {})
    corpus, merged = (Artifact(kind, "1" * 32, "", {}, {}, {}, "", {}) for kind in ("corpus", "merge"))
    names = [bag.name for bag in config.bags.resolved()]
    foundation = SimpleNamespace(base=corpus, corpus=corpus, sizes={"a": 70, "b": 30})
    planned = SimpleNamespace(bags={CORE: core, **dict.fromkeys(names, core)})
    kept = keep_run(store, config, foundation, planned, dict.fromkeys(names, member), merged)
    assert kept.examples == {"a": 40, "b": 30}


def test_one_is_found_by_the_beginning_of_its_key(store: Store) -> None:
    first, second = (keep(store, lineage(run_config(seed=seed))) for seed in (1, 2))
    for one in (first, second):
        found, told = find_lineage(store, f"artifact:lineage/{one.key[:8]}")
        assert found == one and one.key in told and "newest" not in told


def test_what_is_not_there_is_said_with_what_is(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"no run or update in .* is called x\. It has no lineage at all"):
        find_lineage(store, "x")
    keep(store, lineage())
    with pytest.raises(ConfigError, match=r"is called x\. There are old\."):
        find_lineage(store, "x")
    with pytest.raises(ConfigError, match=r"artifact:merge/abcdef is no lineage"):
        find_lineage(store, "artifact:merge/abcdef")
    with pytest.raises(ModelError, match="has no artifact lineage/abcdef"):
        find_lineage(store, "artifact:lineage/abcdef")


def test_one_of_another_version_says_what_to_do(store: Store) -> None:
    kept = keep(store, lineage())
    path = Path(store.location(KIND, kept.key)) / FILE
    text = path.read_text(encoding="utf-8")
    broken = json.dumps({**json.loads(text), "unknown": 1})
    manifest = path.with_name(MANIFEST)
    manifest.write_text(manifest.read_text().replace(str(len(text.encode())), str(len(broken.encode()))))
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(StoreError, match=r"another version of boom_ray.*Run the job that made it again"):
        find_lineage(store, "old")
