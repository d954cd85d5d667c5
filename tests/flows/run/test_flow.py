"""The whole job in this process on the session's cluster: artifacts, MLflow, and what a second call does."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from boom_ray.bags.sampling import BagRule
from boom_ray.config import RunConfig, load_config
from boom_ray.errors import ConfigError, DataError, EvaluationError, MergeError, ModelError, TrackingError
from boom_ray.flows.members import is_everything
from boom_ray.flows.preparing import as_planned
from boom_ray.flows.run.flow import run
from tests.tiny_job import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def job(ray_cluster, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    config = load_config(RunConfig, write_job(folder))
    assert run(config) == 0
    return folder


def artifacts(folder: Path) -> dict[str, float]:
    """Every artifact's manifest and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in (folder / "store").glob("*/*/artifact.json")}


def runs(folder: Path) -> list:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/store/mlflow.db")
    experiment = client.get_experiment_by_name("boom_ray")
    return client.search_runs([experiment.experiment_id])


def test_the_merged_model_loads_and_its_card_tells_its_story(job):
    folder = job / "store" / "models" / "tiny"
    model = SentenceTransformer(str(folder), device="cpu")
    assert np.isfinite(model.encode(["sort a list"])).all()
    card = (folder / "README.md").read_text()
    for word in ("library_name: sentence-transformers", "multislerp", "bag-50", "bag-100", "pairs", "topics"):
        assert word in card


def test_mlflow_shows_parent_children_scores_and_pictures(job):
    found = {one.info.run_name: one for one in runs(job)}
    assert set(found) == {"tiny", "corpus", "bags", "member bag-50", "member bag-100", "base", "merge", "scores"}
    parent = found["tiny"]
    assert all(
        one.data.tags["mlflow.parentRunId"] == parent.info.run_id for name, one in found.items() if name != "tiny"
    )
    assert {one.info.status for one in found.values()} == {"FINISHED"}
    assert parent.data.params["training.batch_size"] == "8"
    for name in ("tiny", "base", "member bag-50", "member bag-100", "merge"):
        assert {"scores/retrieval", "scores/in_domain", "scores/out_of_domain"} <= set(found[name].data.metrics)
    client = mlflow.MlflowClient(f"sqlite:///{job}/store/mlflow.db")
    curve = client.get_metric_history(found["member bag-100"].info.run_id, "loss")
    assert [point.step for point in curve] == list(range(2, 61, 2))
    assert {"pairs_per_s", "learning_rate", "grad_norm"} <= set(found["member bag-100"].data.metrics)
    files = {one.path for one in client.list_artifacts(parent.info.run_id)}
    assert {"config.yaml", "model_card.md", "loss_curves.png", "gain_over_baseline.png"} <= files
    assert "bag_overlap.png" in {one.path for one in client.list_artifacts(found["bags"].info.run_id)}
    merge = found["merge"]
    assert {"geometry/cosine_mean", "geometry/sign_agreement", "bytes_read", "seconds"} <= set(merge.data.metrics)
    report = {one.path for one in client.list_artifacts(merge.info.run_id, "geometry")}
    assert {"geometry/by_layer.csv", "geometry/cosines_by_layer.png", "geometry/lengths_by_layer.png"} <= report


def test_a_second_call_makes_nothing_and_another_merge_only_merges(job):
    before = artifacts(job)
    assert run(load_config(RunConfig, job / "job.yaml")) == 0
    assert artifacts(job) == before
    assert run(load_config(RunConfig, job / "job.yaml", ["merge.method=linear", "merge.weights=size"])) == 0
    fresh = {Path(path).parents[1].name for path in set(artifacts(job)) - set(before)}
    assert fresh == {"merge", "scores", "release", "lineage"}


def test_a_truncated_artifact_is_found_and_built_again(job):
    folder = next((job / "store" / "member").glob("*/model"))
    expected = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(load_config(RunConfig, job / "job.yaml")) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == expected
    assert list((job / "store" / "member").glob("*.damaged-*"))


def test_methods_that_look_at_data_use_the_run_s_own(job):
    before = artifacts(job)
    overrides = ["merge.method=fisher", "merge.probe.examples=16", "merge.probe.batch=8", "merge.probe.actors=1"]
    assert run(load_config(RunConfig, job / "job.yaml", overrides)) == 0
    fresh = [Path(path).parents[1].name for path in set(artifacts(job)) - set(before)]
    assert sorted(set(fresh)) == ["fisher", "lineage", "merge", "release", "scores"] and fresh.count("fisher") == 2
    with pytest.raises(ConfigError, match=r"give evaluation\.selection"):
        run(load_config(RunConfig, job / "job.yaml", ["merge.method=greedy_soup"]))


@pytest.mark.parametrize(
    ("override", "error", "text"),
    [
        ("corpus.datasets.0.source=/nowhere.jsonl", DataError, "/nowhere.jsonl"),
        ("model.base=/nowhere/model", ModelError, "/nowhere/model does not exist"),
        ("evaluation.in_domain.0.path=/nowhere/task", EvaluationError, "/nowhere/task"),
        ("tracking.uri=http://127.0.0.1:9", TrackingError, "127.0.0.1:9"),
    ],
)
def test_wrong_inputs_are_said_before_any_work(job, override, error, text):
    before = artifacts(job)
    with pytest.raises(error, match=text):
        run(load_config(RunConfig, job / "job.yaml", [override]))
    assert artifacts(job) == before


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["merge.method=slerp", "bags.ratios=[0.2,0.3,1.0]"], "slerp merges exactly 2 members; there are 3"),
        (["merge.method=linear", "merge.base=base"], "linear works on whole weights"),
        (["merge.method=model_stock", "merge.weights=[1,2]"], "model_stock"),
        (["merge.method=model_stock", "merge.weights=size"], "model_stock"),
        (["merge.rules=[{tensors: decoder.*, weights: [1,2]}]"], "no tensor is named like 'decoder"),
        (["merge.rules=[{layers: 7-9, weights: [1,2]}]"], "layers are 0-1"),
    ],
)
def test_a_recipe_that_does_not_fit_is_said_before_anything_is_trained(job, overrides, text):
    before = artifacts(job)
    with pytest.raises(MergeError, match=text):
        run(load_config(RunConfig, job / "job.yaml", [*overrides, "training.epochs=7", "corpus.max_negatives=1"]))
    assert artifacts(job) == before


def test_a_rule_for_a_tensor_of_the_members_is_no_fault(job):
    before = artifacts(job)
    assert run(load_config(RunConfig, job / "job.yaml", ["merge.rules=[{tensors: embeddings.*, weights: [1,2]}]"])) == 0
    fresh = {Path(path).parents[1].name for path in set(artifacts(job)) - set(before)}
    assert fresh == {"merge", "scores", "release", "lineage"}


def test_sizes_are_known_in_proportion_before_training(job):
    bags = "bags.members=[{name: a, ratio: 0.25}, {name: b, complement_of: a}]"
    planned = as_planned(load_config(RunConfig, job / "job.yaml", [bags]))
    assert [(ref.name, ref.examples) for ref in planned] == [("a", 250_000), ("b", 750_000)]


def test_only_all_examples_once_are_the_baseline():
    assert is_everything(BagRule(1.0, 0, draw=1))
    assert not is_everything(BagRule(1.0, 0, replacement="poisson"))
    assert not is_everything(BagRule(0.99, 0))
    assert not is_everything(BagRule(1.0, 0, complement=True))
