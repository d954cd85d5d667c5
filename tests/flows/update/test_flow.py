"""Updates of the tiny job in this process: what they reuse, leave, and how they compose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

from boom_ray.bags.stage import load_rows
from boom_ray.config import RunConfig, UpdateConfig, load_config
from boom_ray.errors import ConfigError, DataError
from boom_ray.flows.lineage import Lineage, find_lineage
from boom_ray.flows.run.flow import run
from boom_ray.flows.update.flow import update
from boom_ray.model.folder import stored_prompts
from boom_ray.store import Artifact, Store
from tests.tiny_job import write_job
from tests.tiny_update import write_update

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]
LINEAR = {"method": "linear"}
ROWS = 120
SIZES = {"pairs": 48, "topics": 48}  # of the core: 40 % of each


@pytest.fixture(scope="module")
def after_run(ray_cluster, tmp_path_factory) -> Path:
    """A run, in the folder of all that follows."""
    folder = tmp_path_factory.mktemp("job")
    templates = {"query_template": "{task}{text}", "passage_template": "{text}"}
    small: dict[str, Any] = {"rows": ROWS, "tracking": {"log_model": False}}
    base = load_config(RunConfig, write_job(folder)).model.base
    assert run(load_config(RunConfig, write_job(folder, model={"base": base, **templates}, **small))) == 0
    return folder


def updated(folder: Path, *arguments: Any, **changes: Any) -> Path:
    path = write_update(folder, *arguments, merge=LINEAR, tracking={"log_model": False}, **changes)
    assert update(load_config(UpdateConfig, path)) == 0
    return folder


@pytest.fixture(scope="module")
def after_first(after_run) -> Path:
    """An update with an instruction, which no dataset of the run has, and full retraining beside it."""
    return updated(after_run, "first", "tiny", 1, fields={"instruction": "look: "}, full_retraining=True)


@pytest.fixture(scope="module")
def after_second(after_first) -> Path:
    """An update of the update, of which 20 examples are in the first."""
    return updated(after_first, "second", "first", 2, repeated=20)


@pytest.fixture(scope="module")
def after_again(after_second) -> Path:
    """The second update once more, but all members are merged."""
    return updated(after_second, "all-again", "first", 2, repeated=20, from_members=True)


def artifacts(folder: Path) -> dict[str, float]:
    """Every artifact's manifest and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in (folder / "store").glob("*/*/artifact.json")}


def found(folder: Path, name: str) -> Lineage:
    return find_lineage(Store(folder / "store"), name)[0]


def artifact(folder: Path, kind: str, key: str) -> Artifact:
    artifact = Store(folder / "store").get(kind, key)
    assert artifact is not None
    return artifact


def tensors(folder: Path, kind: str, key: str) -> dict[str, Any]:
    return load_file(artifact(folder, kind, key).local() / "model" / "model.safetensors")


def test_a_run_leaves_what_updates_begin_with(after_run):
    tiny = found(after_run, "tiny")
    assert [member.name for member in tiny.members] == ["bag-50", "bag-100"]
    assert tiny.examples == {"pairs": ROWS, "topics": ROWS} and tiny.ancestors == ()
    (layer,) = tiny.layers
    assert artifact(after_run, *layer.core.split("/")).figures["examples"] == SIZES
    assert artifact(after_run, "merge", tiny.merged).spec == tiny.recipe
    assert artifact(after_run, "base", tiny.base) and artifact(after_run, "corpus", tiny.corpus)


def test_the_merge_is_of_the_model_before_and_the_member(after_first):
    tiny, first = found(after_first, "tiny"), found(after_first, "first")
    before, member = tensors(after_first, "merge", tiny.merged), tensors(after_first, "member", first.members[-1].key)
    for name, value in tensors(after_first, "merge", first.merged).items():
        np.testing.assert_allclose(value, (before[name] + member[name]) / 2, rtol=0, atol=1e-6)


def test_mlflow_has_gain_forgetting_and_costs(after_first):
    client = mlflow.MlflowClient(f"sqlite:///{after_first}/store/mlflow.db")
    experiment = client.get_experiment_by_name("boom_ray")
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    (parent,) = [one for one in runs if one.info.run_name == "first"]
    children = {one.info.run_name: one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    members = {"member update", "member full-retraining"}
    assert set(children) == {"corpus", "bags", "merge", "scores", "before", *members}
    assert {one.info.status for one in (parent, *children.values())} == {"FINISHED"}
    metrics = parent.data.metrics
    assert {"gain/new", "forgetting/old_in-domain", "forgetting/old_out-of-domain", "scores/pairs-1"} <= set(metrics)
    changed = metrics["scores/retrieval"] - children["before"].data.metrics["scores/retrieval"]
    assert metrics["forgetting/old_in-domain"] == pytest.approx(-changed)
    assert metrics["cost/update"] == pytest.approx((2 * 48 + 64) / (2 * 120 + 64))
    assert metrics["cost/full_retraining"] == pytest.approx(1.0)
    files = {one.path for one in client.list_artifacts(parent.info.run_id)}
    pictures = {"change_from_before.png", "change_from_full-retraining.png", "loss_curves.png"}
    tables = {"tasks.csv", "groups.csv", "costs.csv", "comparisons.md", "lineage.json", "everything.yaml"}
    assert pictures | tables <= files
    assert parent.data.tags["lineage"] == f"lineage/{found(after_first, 'first').key}"


def test_a_lineage_names_the_run_and_every_update_before_it(after_second):
    tiny, first, second = (found(after_second, name) for name in ("tiny", "first", "second"))
    assert (tiny.ancestors, first.ancestors) == ((), (tiny.key,))
    assert second.ancestors == (tiny.key, first.key)
    assert [layer.name for layer in second.layers] == ["tiny", "first", "second"]
    assert second.layers[:2] == first.layers and first.layers[:1] == tiny.layers
    assert [member.name for member in second.members] == ["bag-50", "bag-100", "first", "second"]
    assert tiny.base == first.base == second.base
    assert [one.name for one in second.config.corpus.datasets] == ["pairs", "topics", "data-1", "data-2"]
    assert [task.name for task in second.config.evaluation.in_domain] == ["retrieval", "pairs-1", "pairs-2"]


def test_a_member_sees_the_old_cores_and_what_is_new(after_second):
    """The core of the run was drawn by the run; that of the first update is 40 % of its data."""
    tiny, first, second = (found(after_second, name) for name in ("tiny", "first", "second"))
    bags = {one.name: artifact(after_second, "bag", one.members[-1].bag) for one in (first, second)}
    assert bags["first"].figures["examples"] == {**SIZES, "data-1": 64}
    assert bags["second"].figures["examples"] == {**SIZES, "data-1": 26, "data-2": 64}
    core = artifact(after_second, *tiny.layers[0].core.split("/"))
    for bag in bags.values():
        for dataset in SIZES:
            assert load_rows(bag)[dataset].tolist() == load_rows(core)[dataset].tolist()
    kept = artifact(after_second, *second.layers[1].core.split("/"))
    assert load_rows(bags["second"])["data-1"].tolist() == load_rows(kept)["data-1"].tolist()
    assert second.members[-1].examples == 8 * artifact(after_second, "member", second.members[-1].key).figures["steps"]


def test_what_an_older_corpus_holds_is_left_out_and_counted(after_second):
    shares = [
        json.loads(path.read_text())["figures"] for path in (after_second / "store" / "share").glob("*/artifact.json")
    ]
    counts = [one["repeated"]["data-2"] for one in shares if "data-2" in one["datasets"]]
    assert counts == [20, 20]  # all of the new, and the core of it
    assert found(after_second, "second").layers[-1].examples == {"data-2": 64}


def test_all_members_can_be_merged_again_from_the_originals(after_again):
    second, again = found(after_again, "second"), found(after_again, "all-again")
    assert [one.key for one in again.members] == [one.key for one in second.members]
    assert again.merged != second.merged
    members = [tensors(after_again, "member", one.key) for one in again.members]
    for name, value in tensors(after_again, "merge", again.merged).items():
        np.testing.assert_allclose(value, sum(one[name] for one in members) / 4, rtol=0, atol=1e-6)


def test_the_same_update_again_makes_nothing(after_second):
    before = artifacts(after_second)
    for name in ("second", "first"):
        key = found(after_second, name).key
        assert update(load_config(UpdateConfig, after_second / f"{name}.yaml")) == 0
        assert found(after_second, name).key == key
    assert run(load_config(RunConfig, after_second / "job.yaml")) == 0
    assert artifacts(after_second) == before


def test_another_merge_trains_nothing(after_second):
    before = artifacts(after_second)
    overrides = ["name=other", "merge.method=multislerp", "merge.base=base", "merge.weights=size"]
    assert update(load_config(UpdateConfig, after_second / "second.yaml", overrides)) == 0
    fresh = {Path(path).parents[1].name for path in set(artifacts(after_second)) - set(before)}
    assert fresh == {"merge", "scores", "release", "lineage"}


def test_the_model_before_is_untouched_and_can_be_updated_again(after_second):
    """Taking `first` back: the next update begins with the run, and knows nothing of it."""
    before = artifacts(after_second)
    link = (after_second / "store" / "models" / "tiny").resolve()
    path = write_update(
        after_second,
        "instead",
        f"artifact:lineage/{found(after_second, 'tiny').key[:10]}",
        2,
        repeated=20,
        merge=LINEAR,
    )
    assert update(load_config(UpdateConfig, path)) == 0
    assert before.items() <= artifacts(after_second).items()
    assert (after_second / "store" / "models" / "tiny").resolve() == link
    instead = found(after_second, "instead")
    assert instead.ancestors == (found(after_second, "tiny").key,)
    assert instead.layers[-1].examples == {"data-2": 84}, "the 20 are new to the run"


def test_the_models_load_with_the_prompts_of_all_datasets(after_again):
    for name in ("first", "second", "all-again"):
        folder = after_again / "store" / "models" / name
        assert stored_prompts(folder) == {"data-1": "look: "}
        assert np.isfinite(SentenceTransformer(str(folder), device="cpu").encode(["a cat"], prompt_name="data-1")).all()
    card = (after_again / "store" / "models" / "second" / "README.md").read_text()
    for words in (
        "40 % of tiny, 40 % of first, and all that is new",
        "tiny → first → second",
        found(after_again, "first").key,
    ):
        assert words in card


def test_what_is_wrong_is_said_before_any_work(after_second):
    before = artifacts(after_second)
    for overrides, error, text in (
        (["current=nobody"], ConfigError, "is called nobody. There are "),
        (["corpus.datasets.0.source=/nowhere.jsonl"], DataError, "/nowhere.jsonl"),
        (["corpus.datasets.0.name=topics"], ConfigError, "was trained on a dataset topics already"),
        (["name=bag-50"], ConfigError, "name: bag-50 is the name of"),
        (["current=second", "corpus.datasets.0.name=x"], DataError, "Nothing of x is new"),
    ):
        with pytest.raises(error, match=text):
            update(load_config(UpdateConfig, after_second / "second.yaml", ["name=wrong", *overrides]))
        if error is not DataError or "nowhere" in text:
            assert artifacts(after_second) == before
