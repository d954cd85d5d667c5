"""A whole study on the session's cluster: members shared, one report, failures said, a second call makes nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import mlflow
import pytest

from boom_ray.config import StudyConfig, load_config
from boom_ray.errors import TrainingError
from boom_ray.flows.study.flow import study
from boom_ray.store import Artifact, Store
from boom_ray.studies.results import from_json
from tests.tiny_study import ARMS, write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]
BROKEN = {"name": "broken", "set": {"bags.ratios": [1.0], "training.learning_rate": 1e30}}
SEEDS = (0,)
FILES = {
    "report.md", "results.json", "scores.csv", "overview.csv", "types.csv", "tasks.csv", "tests.csv", "claims.csv",
    "differences.png", "domains.png", "tasks.png", "cost_in_domain.png", "cost_out_of_domain.png",
    "synergy_cluster-merge.png",
    "dendrogram_cluster-merge.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def job(ray_cluster, tmp_path_factory) -> Path:
    """A study of which one arm cannot be trained."""
    folder = tmp_path_factory.mktemp("study")
    config = load_config(StudyConfig, write_study(folder, [*ARMS, BROKEN], SEEDS))
    with pytest.raises(TrainingError) as caught:
        study(config)
    (folder / "error.txt").write_text(str(caught.value))
    return folder


def artifacts(folder: Path, kind: str) -> list[Artifact]:
    store = Store(folder / "store")
    found = [store.get(kind, key) for _, key in store.finished(kind)]
    return [one for one in found if one is not None]


@pytest.fixture(scope="module")
def report(job) -> Artifact:
    (found,) = artifacts(job, "study")
    return found


@pytest.fixture(scope="module")
def result(report):
    return from_json(json.loads((report.local() / "results.json").read_text()))


def test_members_that_arms_share_are_trained_once(job):
    assert len(artifacts(job, "member")) == len(SEEDS) * (1 + 1 + 2 + 2)  # bag-100, bag-50, task types, branches
    assert len(artifacts(job, "synergy")) == 1
    assert len(artifacts(job, "merge")) <= len(SEEDS) * 5


def test_an_arm_that_cannot_be_trained_costs_no_other(job, result):
    text = (job / "error.txt").read_text()
    assert text.startswith("Some arms could not be made; the report is about the others:")
    for seed in SEEDS:
        assert f"broken, seed {seed}: broken.s{seed}.bag-100: " in text
    assert {(one.arm, one.seed) for one in result.failures} == {("broken", seed) for seed in SEEDS}
    assert {name for name, runs in result.arms.items() if set(runs) == set(SEEDS)} == {arm["name"] for arm in ARMS}


def test_the_report_has_scores_costs_claims_and_pictures(report, result):
    assert set(report.files) == FILES
    text = (report.local() / "report.md").read_text()
    for word in (
        "BOOM beats batch-level shuffling",
        "clusters of cluster-merge",
        "`broken`, seed 0: broken.s0.bag-100",
    ):
        assert word in text
    assert [one["claim"] for one in report.figures["claims"]] == [
        "BOOM beats batch-level shuffling", "A soup is no worse",
    ]  # fmt: skip
    with (report.local() / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["task"] for row in rows} == {"retrieval", "sts"} == set(result.tasks)
    assert result.base is not None


def test_costs_are_what_was_trained(result):
    costs = {name: [run.cost for run in runs.values()] for name, runs in result.arms.items() if runs}
    assert {name: {round(cost.runs, 3) for cost in own} for name, own in costs.items()} == {
        "bls": {1.0}, "task-merge": {1.0}, "boom": {1.5}, "soup": {1.5}, "best": {1.5},
        "cluster-merge": {round(1 + 8 / 24, 3)},  # two trainings of two steps and one of four find the clusters
        "trunk": {round((19 + 3 + 5) / 24, 3)},  # the trunk to its last fork, and what branches have of their own
    }  # fmt: skip
    assert {name: own[0].members for name, own in costs.items()} == {
        "bls": 1, "task-merge": 2, "cluster-merge": 2, "boom": 2, "soup": 2, "best": 2, "trunk": 2,
    }  # fmt: skip
    assert all(cost.shared_runs == cost.runs for name in ("bls", "task-merge", "boom") for cost in costs[name])
    assert [cost.shared_runs for cost in costs["cluster-merge"]] == [1.0]  # its search is its own
    assert all(cost.seconds > 0 for own in costs.values() for cost in own)


def test_products_are_what_they_are_called(result):
    scores = {name: {seed: run.scores for seed, run in runs.items()} for name, runs in result.arms.items()}
    assert scores["task-merge"] == scores["cluster-merge"]  # of two datasets each is a task type and a cluster
    best = {seed: scores["best"][seed]["sts"].value for seed in SEEDS}
    assert all(best[seed] != scores["boom"][seed]["sts"].value for seed in SEEDS)


def test_mlflow_has_the_report_and_a_run_per_arm_and_seed(job, report):
    client = mlflow.MlflowClient(f"sqlite:///{job}/store/mlflow.db")
    experiment = client.get_experiment_by_name("boom_ray")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("tiny")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.info.status == "FAILED"  # one arm is missing
    assert {one.path for one in client.list_artifacts(parent.info.run_id)} == FILES | {"config.yaml"}
    assert parent.data.tags["report"] == str(report.local())
    arms = {name for name in runs if not name.startswith("member ")}
    assert arms == {f"{arm['name']}.s{seed}" for arm in ARMS for seed in SEEDS}
    boom, best = runs["boom.s0"].data, runs["best.s0"].data
    assert boom.params["recipe.method"] == "multislerp"
    assert boom.params["bags.bag-50.ratio"] == "0.5"
    assert best.params["member"] in {"bag-50", "bag-100"}
    assert {"scores/in_domain", "scores/out_of_domain", "scores/sts", "cost/full_runs"} <= set(boom.metrics)
    curve = client.get_metric_history(runs["member boom.s0.bag-50"].info.run_id, "loss")
    assert [point.step for point in curve] == list(range(2, 13, 2))


def test_a_second_call_makes_nothing_and_another_seed_only_its_own(job):
    def written() -> dict[str, float]:
        return {str(path): path.stat().st_mtime_ns for path in (job / "store").glob("*/*/artifact.json")}

    config = load_config(StudyConfig, job / "job.yaml", [f"study.arms={json.dumps(ARMS)}"])
    assert study(config) == 0  # without the broken arm
    before = written()
    assert study(config) == 0
    assert written() == before
    more = load_config(StudyConfig, job / "job.yaml", [f"study.arms={json.dumps(ARMS[:1])}", "study.claims=[]",
                                                       "study.seeds=[0, 1]"])  # fmt: skip
    assert study(more) == 0
    fresh = sorted(Path(path).parents[1].name for path in set(written()) - set(before))
    assert fresh == ["bag", "member", "scores", "scores", "study"]


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    config = load_config(StudyConfig, write_study(tmp_path), ["dry_run=true"])
    assert study(config) == 0
    assert "Plan of tiny; nothing was written." in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
