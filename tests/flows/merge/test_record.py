"""What a merge leaves in MLflow: the data that was looked at, and a time that tells how long the work took."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.config import MergeConfig
from boom_ray.flows.merge.record import lineage_of_data, record_merge, record_model
from boom_ray.flows.preparing import Prepared, _looked_at
from boom_ray.merging.job import MergeInputs
from boom_ray.merging.recipe import MemberRef
from boom_ray.store import Artifact, Store
from tests.flows.recording import Remembered, bare_workspace

INPUTS = MergeInputs([MemberRef("one", "/one", "1" * 32, 0), MemberRef("two", "/two", "2" * 32, 0)])


def artifact(kind: str, key: str, **facts: Any) -> Artifact:
    known: dict[str, Any] = {"spec": {}, "inputs": {}, "figures": {}, "fingerprint": key, "files": {}}
    return Artifact(kind=kind, key=key, uri="", **(known | facts))


def looked_at() -> dict[str, Any]:
    """Fisher information of two members on a sample of a corpus of two datasets."""
    corpus = artifact("corpus", "c0", fingerprint="f0", figures={"datasets": {"a": {"rows": 90}, "b": {"rows": 7}}})
    spec = {"sample": {"examples": 16, "seed": 3}, "loss": {"temperature": 0.05}, "model": {"weights": "x"}}
    made = {
        f"fisher of {name}": artifact("fisher", key, spec=spec, figures={"examples": {"a": 9, "b": 7}})
        for name, key in (("one", "k1"), ("two", "k2"))
    }
    ground: Any = SimpleNamespace(corpus=corpus)
    return _looked_at(ground, made)


def test_the_data_that_was_looked_at_is_told() -> None:
    run: Any = Remembered("merge")
    merged = artifact("merge", "m", spec={"weights": [0.5, 0.5]}, figures={"coefficients": {}})
    record_merge(run, merged, Prepared(INPUTS, MergeConfig(method="fisher"), {}, looked_at()))
    params = run.logged["params"]
    assert params["lineage"] == {
        **{"member one": "1" * 32, "member two": "2" * 32},
        **{"corpus looked at": "f0", "fisher of one": "k1", "fisher of two": "k2"},
    }
    assert params["looked_at"]["examples"] == {"a": 9, "b": 7}
    assert json.loads(run.logged["texts"]["looked_at.json"]) == {
        "corpus": {"key": "c0", "fingerprint": "f0", "examples": {"a": 90, "b": 7}},
        "examples": {"a": 9, "b": 7},
        "settings": {"sample": {"examples": 16, "seed": 3}, "loss": {"temperature": 0.05}},
        "artifacts": {"fisher of one": "k1", "fisher of two": "k2"},
    }


def test_a_method_without_data_tells_of_none() -> None:
    run: Any = Remembered("merge")
    ready = Prepared(INPUTS, MergeConfig(), {})
    record_merge(run, artifact("merge", "m", spec={"weights": [0.5, 0.5]}, figures={"coefficients": {}}), ready)
    assert lineage_of_data(ready) == {} and "looked_at" not in run.logged["params"]
    assert set(run.logged["texts"]) == {"recipe.json"}


@pytest.fixture
def merged(tmp_path: Path) -> Artifact:
    def build(draft: Any) -> None:
        (draft.path / "model").mkdir()
        (draft.path / "model" / "config.json").write_text("{}")

    return Store(tmp_path / "store").materialize("merge", {"method": "linear"}, {}, build)


def test_the_time_is_that_of_the_call_that_made_the_model(tmp_path: Path, merged: Artifact) -> None:
    space, _ = bare_workspace(tmp_path / "store")
    config: Any = SimpleNamespace(name="n", tracking=SimpleNamespace(log_model=False))
    calls = []
    for card in ("---\n---\none", "---\n---\none", "---\n---\nother"):
        run: Any = Remembered("merge")
        folder = record_model(space, run, merged, card, config, 0.0)
        assert (folder / "README.md").read_text() == card and run.logged["tags"]["model"] == str(folder)
        calls.append("wall_seconds" in run.logged["metrics"])
    assert calls == [True, False, True]
