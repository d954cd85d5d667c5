"""Which tasks a corpus makes in domain: by the sources that a run of it had, else by names."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import EvaluationConfig
from boom_ray.flows.evaluate.domains import corpus_domains
from boom_ray.flows.lineage import FILE, KIND, keep
from boom_ray.flows.workspace import Workspace
from boom_ray.store import Artifact, Draft, Store
from tests.flows.lineages import lineage, run_config
from tests.flows.recording import bare_workspace

ROWS = {"stsb": 5, "faq": 3, "sick": 0}
TASKS = EvaluationConfig.model_validate(
    {
        "in_domain": [{"name": "STS-B", "path": "/elsewhere", "type": "sts"}],
        "out_of_domain": [
            {"name": "answers", "path": "/x", "type": "retrieval", "overlaps": ["faq"]},
            {"name": "help", "path": "/data/faq", "type": "retrieval"},
            {"name": "sick", "path": "/data/sick", "type": "sts"},
        ],
    }
)


@pytest.fixture
def space(tmp_path: Path) -> tuple[Workspace, list[str]]:
    """A workspace, and what is said in it."""
    space, said = bare_workspace(tmp_path / "store")[0], list[str]()
    progress: Any = space.progress
    progress.say = said.append
    return space, said


def corpus(store: Store) -> Artifact:
    """A corpus of three datasets, one of which has kept no row."""
    spec = {name: {"key": f"{name}0", "task_type": "retrieval"} for name in ROWS}

    def build(draft: Draft) -> None:
        draft.figures = {"datasets": {name: {"rows": rows} for name, rows in ROWS.items()}}

    return store.materialize("corpus", spec, {}, build)


def test_without_a_run_names_and_overlaps_decide(
    space: tuple[Workspace, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    place, said = space
    made = corpus(place.store)
    keep(place.store, lineage())  # of another corpus
    with caplog.at_level(logging.WARNING):
        found = corpus_domains(place, made, TASKS)
    assert {one.task: one.datasets for one in found} == {
        "STS-B": {"stsb": "name"},
        "answers": {"faq": "overlaps"},
        "help": {},
        "sick": {},
    }
    (told,) = said
    assert told.startswith(f"The store has no run of corpus/{made.key}, so where its datasets came from is not known")
    (record,) = caplog.records
    assert record.message.startswith("Task answers is reported as out-of-domain, but datasets of its source were")


def test_a_run_of_the_corpus_tells_where_its_datasets_came_from(space: tuple[Workspace, list[str]]) -> None:
    place, said = space
    made = corpus(place.store)
    datasets = [{"name": name, "source": f"/data/{name}/train.jsonl", "task_type": "sts"} for name in ROWS]
    kept = keep(place.store, lineage(run_config(corpus={"datasets": datasets}), corpus=made.key))
    found = corpus_domains(place, made, TASKS)
    assert {one.task: one.datasets for one in found} == {
        "STS-B": {"stsb": "name"},
        "answers": {"faq": "overlaps"},
        "help": {"faq": "source"},
        "sick": {},
    }
    assert said == []
    path = Path(place.store.location(KIND, kept.key)) / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unknown": 1}))
    assert corpus_domains(place, made, TASKS)[2].datasets == {}, "a run of another version tells nothing"
    assert len(said) == 1
