"""The studies that users start from load, can be made, and say in their comments what they take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boom_ray.config import RunConfig, StudyConfig, load_config
from boom_ray.flows.study.outlook import outlook_lines
from boom_ray.flows.study.plan import check_arms

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "conf" / "studies").glob("*.yaml"))
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
each = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@each
def test_every_study_loads_and_all_its_arms_can_be_made(path):
    config = load_config(StudyConfig, path)
    check_arms(config)
    assert f"python jobs/study.py conf/studies/{path.name}" in path.read_text(encoding="utf-8")
    assert f"../conf/studies/{path.name}" in PAGE


@each
def test_what_the_comment_says_it_takes_is_what_it_takes(path):
    config = load_config(StudyConfig, path)
    comment = " ".join(re.findall(r"^#(.*)$", path.read_text(encoding="utf-8"), re.M))
    outlook = "\n".join(outlook_lines(config))
    members, runs = re.search(r"(\d+) members .*?, ([\d.]+) full runs", comment).groups()  # type: ignore[union-attr]
    assert f" {members} distinct ones" in outlook
    assert f"about {float(runs):.2f} full runs" in outlook
    products, tasks = re.search(r"(\d+) models on\s+(\d+) tasks", comment).groups()  # type: ignore[union-attr]
    assert f"{int(products) - 1} models and the base, {tasks} tasks" in outlook


def test_the_quickstart_needs_no_data_beside_the_project():
    config = load_config(StudyConfig, ROOT / "conf" / "studies" / "quickstart.yaml")
    run = load_config(RunConfig, ROOT / "conf" / "quickstart.yaml")
    assert all(one.source.startswith("embedded:") for one in config.corpus.datasets)
    assert all((one.path or "").startswith("embedded:") for one in config.evaluation.all_tasks)
    assert config.evaluation.tasks == run.evaluation.tasks


@pytest.mark.parametrize("name", ["shared_bert_mini", "shared_minilm"])
def test_shares_of_capped_datasets_are_whole_batches(name):
    config = load_config(StudyConfig, ROOT / "conf" / "studies" / f"{name}.yaml")
    caps, batch = config.bags.mixture.caps, config.training.batch_size
    assert set(caps) == {one.name for one in config.corpus.datasets}
    ratios = {0.2, 0.4, 0.5, 0.6, 0.8, 1.0}
    assert all((round(ratio * cap) % batch) == 0 for cap in caps.values() for ratio in ratios)


@pytest.mark.parametrize("name", ["shared_bert_mini", "shared_minilm"])
def test_selection_is_neither_trained_on_nor_reported(name):
    config = load_config(StudyConfig, ROOT / "conf" / "studies" / f"{name}.yaml")
    reported = {(task.path, task.split) for task in config.evaluation.tasks}
    assert all((task.path, task.split) not in reported and task.split == "dev" for task in config.evaluation.selection)
    trained = {Path(one.source).parent.name for one in config.corpus.datasets}
    assert not trained & {Path(task.path or "").name for task in config.evaluation.out_of_domain}
    assert trained == {Path(task.path or "").name for task in config.evaluation.in_domain}
