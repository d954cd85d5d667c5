"""jobs/evaluate.py as a user runs it: models compared, files exported, published results beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from huggingface_hub import ModelCard

from tests.evaluation.router_model import make_router_model
from tests.evaluation.task_folders import write_task
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
KINDS = ("retrieval", "reranking", "sts", "classification")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("first", "second")):
        make_tiny_model(folder / name, seed=seed)
    tasks = [write_task(folder / f"My{kind}", kind).model_dump(mode="json") for kind in KINDS]
    config = {
        "name": "pair",
        "store": str(folder / "store"),
        "models": [str(folder / "first"), {"name": "other", "path": str(folder / "second"), "cost": 2.0}],
        "evaluation": {"in_domain": tasks[:2], "out_of_domain": tasks[2:]},
        "export": str(folder / "export"),
        "card_of": "other",
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    return folder


def evaluate(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/evaluate.py", str(config), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )


@pytest.fixture(scope="module")
def output(kitchen: Path) -> str:
    done = evaluate(kitchen / "job.yaml", "--compare")
    assert done.returncode == 0, done.stdout
    return done.stdout


def runs(kitchen: Path) -> dict[str, Any]:
    client = mlflow.MlflowClient(f"sqlite:///{kitchen}/store/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = {run.info.run_name: run for run in client.search_runs(experiments)}
    return {"client": client, **found}


def test_scores_tests_and_places_are_said(output: str, kitchen: Path) -> None:
    assert "Means over tasks" in output
    assert "other against first:" in output
    assert "in the mean over 4 tasks" in output
    assert f"mteb's result files: {kitchen}/export" in output
    assert "MLflow" in output.splitlines()[-3], "nothing of Ray's stands behind the last words"


def test_mlflow_has_a_run_with_tables_and_pictures_and_one_per_model(output: str, kitchen: Path) -> None:
    found = runs(kitchen)
    client = found["client"]
    names = {one.path for one in client.list_artifacts(found["pair"].info.run_id)}
    assert names >= {"scores.csv", "means.csv", "scores.md", "prompts.csv", "types.png", "config.yaml", "model_card.md"}
    assert "in_and_out_of_domain.png" in names
    compared = {one.path for one in client.list_artifacts(found["pair"].info.run_id, "compare")}
    assert compared == {f"compare/other.{kind}" for kind in ("csv", "json", "md", "png")}
    metrics = found["other"].data.metrics
    assert {f"scores/My{kind}" for kind in KINDS} <= metrics.keys()
    assert metrics["mean/mean_task"] == pytest.approx(sum(metrics[f"scores/My{kind}"] for kind in KINDS) / 4)


def test_files_and_card_are_exported(output: str, kitchen: Path) -> None:
    (card,) = (kitchen / "export" / "other").glob("*/README.md")
    results = ModelCard.load(card).data.eval_results
    assert {result.dataset_name for result in results} == {f"MTEB My{kind}" for kind in KINDS}
    (meta,) = (kitchen / "export" / "first").glob("*/model_meta.json")
    assert json.loads(meta.read_text())["name"] == "boom_ray/first"


def test_published_results_stand_beside_models_and_nothing_is_computed_again(output: str, kitchen: Path) -> None:
    results = f"results=[{kitchen}/export/first]"
    done = evaluate(
        kitchen / "job.yaml", "--compare", results, "models=[{name: other, path: %s}]" % (kitchen / "second")
    )
    assert done.returncode == 0, done.stdout
    assert "boom_ray/first against other:" in done.stdout
    assert done.stdout.count("cached") == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.1.run=first", "models: there is a run first, and a model of that name that is not of it"),
        ("baseline=nobody", "baseline: there is no model named nobody; there are first, other"),
        ("evaluation.benchmarks=[{name: MTEB(xyz)}]", "has no benchmark MTEB(xyz); did you mean"),
        ("evaluation.benchmarks=[{name: BEIR}]", "The Hugging Face hub cannot be reached, and the data of 15 of"),
        ("contamination=artifact:corpus/0123456789", "contamination: the store"),
        ("models=[/nowhere]", "/nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(output: str, kitchen: Path, override: str, message: str) -> None:
    done = evaluate(kitchen / "job.yaml", override)
    assert done.returncode in {1, 2}
    assert message in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.long
def test_a_faulty_task_ends_the_job_while_actors_start(kitchen: Path, tmp_path: Path) -> None:
    """In a new store Ray and its actors are there before the tasks are checked."""
    task = write_task(tmp_path / "Bad", "sts")
    (tmp_path / "Bad" / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 9}\n')
    given = yaml.safe_dump([task.model_dump(mode="json")], default_flow_style=True, width=10_000).strip()
    done = evaluate(kitchen / "job.yaml", f"store={tmp_path}/store", f"evaluation.in_domain={given}")
    assert done.returncode == 1
    assert f"{tmp_path}/Bad/test.jsonl:1: score 9 is outside [0, 5]" in done.stdout
    assert "Traceback" not in done.stdout
    assert not list((tmp_path / "store").glob("scores/*"))


@pytest.mark.long
def test_a_model_with_a_router_stands_beside_others(kitchen: Path, tmp_path: Path) -> None:
    routed = make_router_model(tmp_path / "routed")
    models = f"models=[{{name: first, path: {kitchen}/first}}, {{name: routed, path: {routed}}}]"
    places = [f"store={tmp_path}/store", f"export={tmp_path}/export", "card_of=routed", "evaluation.out_of_domain=[]"]
    done = evaluate(kitchen / "job.yaml", models, *places)
    assert done.returncode == 0, done.stdout
    found = {path.parent.parent.name for path in (tmp_path / "export").glob("*/*/Myretrieval.json")}
    assert found == {"first", "routed"}
