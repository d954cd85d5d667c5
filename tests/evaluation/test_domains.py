from __future__ import annotations

import logging
from typing import Any

import pytest

from boom_ray.config import DatasetConfig, EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.domains import domains_table, trained_domains


def dataset(name: str, source: str, **fields: Any) -> DatasetConfig:
    return DatasetConfig(name=name, source=source, task_type="sts", **fields)


def folder(name: str, path: str, **fields: Any) -> TaskConfig:
    return TaskConfig(name=name, path=path, type="sts", **fields)


DATASETS = [
    dataset("stsb", "/data/stsb/train.jsonl"),
    dataset("hint", "/data/hint3/*.train.jsonl"),
    dataset("nq", "cfli/bge-full-data", format="huggingface"),
    dataset("sts-hub", "mteb/stsbenchmark-sts", format="huggingface"),
    dataset("untrained", "/data/sick/train.jsonl"),
]
EXAMPLES = {"stsb": 5, "hint": 3, "nq": 9, "sts-hub": 1, "untrained": 0}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (folder("STS-B", "/elsewhere"), {"stsb": "name"}),
        (folder("similarity", "/data/stsb"), {"stsb": "source"}),
        (folder("curekart", "/data/hint3/", split="curekart.test"), {"hint": "source"}),
        (folder("a", "/data/a", overlaps=("nq", "hint")), {"hint": "overlaps", "nq": "overlaps"}),
        (folder("sick", "/data/sick"), {}),
        (folder("stsb-new", "/data/stsb-new"), {}),
        (folder("untrained", "/x", overlaps=("unknown",)), {}),
        (TaskConfig(name="NQ"), {"nq": "name"}),
        (TaskConfig(name="STSBenchmark"), {"sts-hub": "source"}),
        (TaskConfig(name="STS12"), {}),
    ],
)
def test_what_counts_as_one_source(task: TaskConfig, expected: dict[str, str]) -> None:
    (found,) = trained_domains(EvaluationConfig(out_of_domain=(task,)), DATASETS, EXAMPLES)
    assert found.datasets == expected
    assert found.trained == ("in_domain" if expected else "out_of_domain")


def test_the_group_goes_by_what_was_trained_on_and_mismatches_are_said(caplog: pytest.LogCaptureFixture) -> None:
    config = EvaluationConfig(
        in_domain=(folder("stsb", "/data/stsb"), folder("sick", "/data/sick")),
        out_of_domain=(folder("hints", "/data/hint3"), folder("new", "/data/new")),
        selection=(folder("chosen", "/data/nq", overlaps=("nq",)),),
    )
    with caplog.at_level(logging.WARNING):
        found = trained_domains(config, DATASETS, EXAMPLES)
    assert [(one.task, one.trained, one.is_as_configured) for one in found] == [
        ("stsb", "in_domain", True),
        ("sick", "out_of_domain", False),
        ("hints", "in_domain", False),
        ("new", "out_of_domain", True),
    ]
    first, second = (record.message for record in caplog.records)
    assert first.startswith("Task sick is reported as in-domain, but no dataset of its source was trained on.")
    assert second.startswith(
        "Task hints is reported as out-of-domain, but datasets of its source were trained on: hint."
    )
    assert domains_table(found)[0] == {
        "task": "stsb",
        "reported as": "in-domain",
        "trained on": "stsb (by name)",
        "by training": "in-domain",
    }
    assert [row["trained on"] for row in domains_table(found)] == ["stsb (by name)", "-", "hint (by source)", "-"]


def test_a_task_that_mteb_does_not_know_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no task Nonsense"):
        trained_domains(EvaluationConfig(in_domain=(TaskConfig(name="Nonsense"),)), DATASETS, EXAMPLES)
