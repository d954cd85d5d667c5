from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.benchmarks import check_tasks, evaluation_texts, score_spec, task_sizes
from boom_ray.evaluation.schedule import UNKNOWN_SIZE
from boom_ray.evaluation.scores import ModelRef
from boom_ray.hashing import normalized_text_key
from tests.evaluation.task_folders import write_jsonl, write_task

MODEL = ModelRef("m", "/nowhere", "f", "p")


def test_sound_tasks_pass(tasks: dict[str, TaskConfig]) -> None:
    check_tasks(EvaluationConfig(in_domain=tuple(tasks.values())))


def test_sizes_are_the_characters_to_encode(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"query": "ab", "positive": ["c"], "negative": ["defg"]}])
    assert task_sizes([TaskConfig(name="t", path=str(tmp_path), type="reranking")]) == {"t": 7}


def test_mtebs_own_tasks_have_the_sizes_of_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    from mteb.abstasks.task_metadata import TaskMetadata

    sizes = {
        "STS12": 402_118,
        "Banking77Classification": 167_036,
        "ArguAna": 10_607_229,
        "STS17": 400_264,
        "BiorxivClusteringP2P.v2": 3_579_993,  # 4 % of the documents are embedded
        "AlloProfClusteringS2S.v2": 83_909,  # 2556 are, and there are no more
        "CQADupstackRetrieval": 426_551_177,  # the sum of its parts
    }
    tasks = [TaskConfig(name=name) for name in sizes]
    assert task_sizes(tasks) == sizes
    assert task_sizes([TaskConfig(name="STS17", subsets=("ko-ko", "ar-ar"))]) == {"STS17": 183_387 + 16_247}
    monkeypatch.setattr(TaskMetadata, "descriptive_stats", None)
    assert set(task_sizes(tasks).values()) == {UNKNOWN_SIZE}


def test_bitext_of_many_languages_counts_every_language_once() -> None:
    name = "IN22ConvBitextMining"
    whole = task_sizes([TaskConfig(name=name)])[name]
    pair, *others = (("asm_Beng-ben_Beng",), ("asm_Beng-ben_Beng", "asm_Beng-brx_Deva"), ("ben_Beng-brx_Deva",))
    one, two, rest = (task_sizes([TaskConfig(name=name, subsets=own)])[name] for own in (pair, *others))
    assert 0 < one < two < one + rest < whole


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    bad = tuple(TaskConfig(name=name, path=str(tmp_path / name), type="sts") for name in ("one", "two"))
    with pytest.raises(EvaluationError, match=r"Task one: there is no folder(.|\n)*Task two: there is no folder"):
        check_tasks(EvaluationConfig(in_domain=bad))


def test_an_unknown_mteb_task_gets_near_names() -> None:
    with pytest.raises(EvaluationError, match="no task Banking77Clasification; did you mean Banking77Classification"):
        check_tasks(EvaluationConfig(in_domain=(TaskConfig(name="Banking77Clasification"),)))


def test_an_unknown_split_of_an_mteb_task_names_those_it_has() -> None:
    with pytest.raises(EvaluationError, match="no split nope; set split to one of: test"):
        check_tasks(EvaluationConfig(in_domain=(TaskConfig(name="Banking77Classification", split="nope"),)))


def test_subsets_restrict_an_mteb_task_and_are_part_of_its_spec() -> None:
    from boom_ray.evaluation.local_tasks import named_task

    name = "MassiveIntentClassification"
    every, english = TaskConfig(name=name), TaskConfig(name=name, subsets=("en",))
    assert list(named_task(english, 0).hf_subsets) == ["en"]
    assert len(named_task(every, 0).hf_subsets) > 40
    config = EvaluationConfig()
    assert score_spec(MODEL, english, config) == score_spec(MODEL, every, config) | {"subsets": ["en"]}
    with pytest.raises(EvaluationError, match="no subset xx; set subsets to some of: af, "):
        check_tasks(EvaluationConfig(in_domain=(TaskConfig(name=name, subsets=("xx",)),)))


def test_a_spec_depends_on_content_and_not_on_place(tmp_path: Path) -> None:
    config = EvaluationConfig()
    task = write_task(tmp_path / "a", "classification").model_copy(update={"name": "task"})
    spec = score_spec(MODEL, task, config)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = task.model_copy(update={"path": str(tmp_path / "b")})
    assert score_spec(MODEL, moved, config) == spec
    (tmp_path / "b" / "notes.txt").write_text("not part of the split", encoding="utf-8")
    assert score_spec(MODEL, moved, config) == spec
    write_jsonl(tmp_path / "b" / "train.jsonl", [{"text": "other", "label": "x"}])
    assert score_spec(MODEL, moved, config) != spec


def test_a_spec_depends_on_what_changes_the_score_only(tasks: dict[str, TaskConfig]) -> None:
    task, config = tasks["sts"], EvaluationConfig()
    spec = score_spec(MODEL, task, config)
    assert score_spec(MODEL, task, EvaluationConfig(batch_size=3, actors=2, cpus_per_actor=4)) == spec
    assert score_spec(MODEL, task, EvaluationConfig(seed=1)) != spec
    assert score_spec(MODEL, task, EvaluationConfig(precision="bfloat16")) != spec
    asked = task.model_copy(update={"instruction": "Find the same"})
    assert score_spec(MODEL, asked, config) == spec, "a model without templates does not see the instruction"
    templated = dataclasses.replace(MODEL, query_template="{task}: {text}")
    assert score_spec(templated, asked, config) != score_spec(templated, task, config)


def test_texts_for_decontamination(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"query": "Ab  C", "positive": ["d"], "negative": ["e"]}])
    task = TaskConfig(name="t", path=str(tmp_path), type="reranking")
    keys = evaluation_texts(EvaluationConfig(out_of_domain=(task,)))["t"]
    assert keys.dtype == np.uint64
    assert keys.tolist() == sorted([normalized_text_key("ab c"), normalized_text_key("D")])
    assert set(evaluation_texts(EvaluationConfig(selection=(task,)))) == {"t"}


def test_tasks_to_choose_by_are_checked_too(tmp_path: Path) -> None:
    gone = TaskConfig(name="t", path=str(tmp_path / "gone"), type="sts")
    with pytest.raises(EvaluationError, match="Task t: there is no folder"):
        check_tasks(EvaluationConfig(selection=(gone,)))


def test_named_tasks_are_left_out_loudly(caplog: pytest.LogCaptureFixture) -> None:
    assert evaluation_texts(EvaluationConfig(in_domain=(TaskConfig(name="STS12"),))) == {}
    assert "not compared with the training data: STS12" in caplog.text
