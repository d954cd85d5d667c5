"""What tells trials apart, and that the files of tasks are read once."""

from __future__ import annotations

import pytest

from boom_ray.config import EvaluationConfig
from boom_ray.evaluation import benchmarks
from boom_ray.evaluation.benchmarks import score_spec
from boom_ray.evaluation.scores import ModelRef
from boom_ray.sweeps.job import TaskSpecs
from tests.evaluation.task_folders import write_task


@pytest.mark.parametrize("query", ["{text}", "{task}: {text}"])
def test_specs_are_those_of_the_evaluation_stage_and_files_are_hashed_once(tmp_path, monkeypatch, query):
    task, config = write_task(tmp_path / "sts", "sts"), EvaluationConfig(seed=3)
    reader = ModelRef("m", "somewhere", "f", "p", query)
    expected, read = score_spec(reader, task, config), []
    hashed = benchmarks.file_digest
    monkeypatch.setattr(benchmarks, "file_digest", lambda path: read.append(path) or hashed(path))
    specs = TaskSpecs(config)
    assert specs.of(task, reader) == specs.of(task, reader) == expected
    assert [path.name for path in read] == ["test.jsonl"]
