"""A whole sweep in this process on the session's cluster: members trained once, trials, report, more trials."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
import yaml

from boom_ray.config import RunConfig, SweepConfig, load_config
from boom_ray.errors import ConfigError, MergeError
from boom_ray.flows.run.flow import run
from boom_ray.flows.sweep import scoring
from boom_ray.flows.sweep.flow import sweep
from boom_ray.flows.sweep.plan import plan_lines
from boom_ray.store import Store
from tests.evaluation.task_folders import write_task
from tests.tiny_job import write_job

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SPACE = {
    "bags": {"choice": {"both": {"ratios": [0.5, 1.0]}, "halves": {"ratios": [0.5, 0.5]}}},
    "merge.method": {"choice": ["linear", "ties"]},
    "merge.parameters.density": {"uniform": [0.2, 0.9], "when": {"merge.method": "ties"}},
    "merge.weights": {"simplex": {}},
}


def write_sweep(folder: Path, **changes: object) -> Path:
    """A tiny job with a search in it; returns the configuration's path."""
    path = write_job(folder, tracking={"log_model": False})
    config = yaml.safe_load(path.read_text())
    task = write_task(folder / "tasks" / "dev", "sts")
    config["evaluation"]["cpus_per_actor"] = 2  # trials' actors take all of the cluster: others must be let in
    config["evaluation"]["selection"] = [task.model_dump(mode="json")]
    config["sweep"] = {"space": SPACE, "trials": 6, "batch": 3, "searcher": "tpe", **changes}
    path.write_text(yaml.safe_dump(config))
    return path


def artifacts(folder: Path, kind: str) -> set[str]:
    return {path.parent.name for path in (folder / "store" / kind).glob("*/artifact.json")}


def runs(folder: Path) -> dict[str, list]:
    """MLflow's runs by stage."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/store/mlflow.db")
    experiment = client.get_experiment_by_name("boom_ray")
    found: dict[str, list] = {}
    for one in client.search_runs([experiment.experiment_id], max_results=1000):
        found.setdefault(one.data.tags.get("stage", ""), []).append(one)
    return found


def table(folder: Path) -> list[dict]:
    (path,) = sorted((folder / "store" / "sweep").glob("*/trials.json"), key=lambda one: one.stat().st_mtime)[-1:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def done(ray_cluster, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    assert sweep(load_config(SweepConfig, write_sweep(folder))) == 0
    return folder


def test_members_that_trials_share_are_trained_once(done):
    # 50 %, another 50 %, 100 %; the baseline is the last of them
    assert len(artifacts(done, "member")) <= 3
    assert len(runs(done)["trial"]) == 6
    assert {one.info.status for one in runs(done)["trial"]} == {"FINISHED"}


def test_mlflow_tells_what_was_tried_and_what_won(done):
    found = runs(done)
    (parent,) = found["sweep"]
    assert all(one.data.tags["mlflow.parentRunId"] == parent.info.run_id for one in found["trial"] + found["member"])
    keys = {one.data.tags["key"] for one in found["member"]}
    assert all(set(json.loads(one.data.tags["members"]).values()) <= keys for one in found["trial"])
    assert {one.info.status for one in found["member"]} == {"FINISHED"}
    assert parent.data.tags["ended"] == "The search ended after 6 trials: sweep.trials=6 were made."
    values = {one.data.params["number"]: one.data.metrics["score"] for one in found["trial"]}
    assert parent.data.metrics["best/score"] == pytest.approx(max(values.values()))
    client = mlflow.MlflowClient(f"sqlite:///{done}/store/mlflow.db")
    names = {one.path for one in client.list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "report.md", "best.yaml", "best_so_far.png", "config.yaml", "model_card.md"} <= names
    assert "scores/retrieval" in parent.data.metrics


def test_the_chosen_configuration_makes_the_chosen_model(done):
    best = sorted((done / "store" / "sweep").glob("*/best.yaml"))[0]
    config = load_config(RunConfig, best)
    merged = artifacts(done, "merge")
    assert run(config.model_copy(update={"baseline": False})) == 0
    assert artifacts(done, "merge") == merged  # it was there


def test_more_trials_begin_with_the_same_ones_and_train_nothing(done):
    members, before = artifacts(done, "member"), table(done)
    path = done / "job.yaml"
    assert sweep(load_config(SweepConfig, path, ["sweep.trials=9", "resume=true"])) == 0
    after = table(done)
    assert len(after) == 9
    assert [row["objective.score"] for row in after[:6]] == [row["objective.score"] for row in before]
    assert artifacts(done, "member") == members
    assert len(runs(done)["trial"]) == 9
    assert len(runs(done)["sweep"]) == 1


def test_a_trial_that_cannot_be_merged_fails_with_its_reason_and_the_others_go_on(done):
    ratios = {"choice": [[0.5, 1.0], [0.5, 0.5, 1.0]]}  # slerp is for two, which only the combination tells
    space = {"bags.ratios": ratios, "merge.method": {"choice": ["linear", "slerp"]}}
    path = write_sweep(done, searcher="grid", trials=4, batch=4, space=space)
    assert sweep(load_config(SweepConfig, path, ["name=faulty"])) == 0
    rows = table(done)
    assert {row["status"] for row in rows} == {"finished", "failed"}
    (bad,) = [row for row in rows if row["status"] == "failed"]
    assert "slerp merges exactly 2 members" in bad["error"]
    names = artifacts(done, "failed_trial")
    assert len(names) == 1
    assert sweep(load_config(SweepConfig, path, ["name=faulty", "sweep.retry_failed=true"])) == 0
    assert artifacts(done, "failed_trial") == names  # tried again, and failed again
    assert table(done) == rows


def test_resume_needs_an_earlier_part(done):
    path = write_sweep(done)
    with pytest.raises(ConfigError, match="nothing to resume"):
        sweep(load_config(SweepConfig, path, ["sweep.seed=77", "resume=true"]))


def test_a_group_of_layers_that_the_model_lacks_is_said_before_data_is_read(done):
    before = artifacts(done, "corpus")
    space = SPACE | {"merge.weights": {"simplex": {"layers": ["decoder.*"]}}}
    path = write_sweep(done, space=space)
    with pytest.raises(MergeError, match="no tensor is named like 'decoder"):
        sweep(load_config(SweepConfig, path, ["corpus.max_negatives=3"]))
    assert artifacts(done, "corpus") == before


def test_the_plan_counts_distinct_members(done):
    lines = "\n".join(plan_lines(load_config(SweepConfig, write_sweep(done)), Store(done / "store")))
    assert "at most 3 distinct ones for 2 sets" in lines
    assert "at most 2.00 full runs" in lines
    assert "CPU-hours" in lines


def test_members_key_ignores_the_merge(done):
    config = load_config(SweepConfig, write_sweep(done))
    other = config.model_copy(update={"merge": config.merge.model_copy(update={"method": "karcher"})})
    assert scoring.members_key(config) == scoring.members_key(other)
    again = config.model_copy(update={"seed": 5})
    assert scoring.members_key(config) != scoring.members_key(again)
