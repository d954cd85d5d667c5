from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import HeldOut, read_folder
from boom_ray.evaluation.held_out import near_texts, read_folders, texts_of
from tests.evaluation.task_folders import TYPES, write_retrieval


def test_a_passage_is_one_text_however_many_queries_it_answers(tmp_path: Path) -> None:
    task = write_retrieval(
        tmp_path / "r", [("q0", "p1", 1), ("q1", "p1", 2), ("q2", "p2", 1), ("q2", "p3", 0)], queries=3
    )
    found = list(read_folder(task).held_out())
    assert [one.role for one in found] == ["queries"] * 3 + ["passages"] * 2
    assert found[0].forms == ("where is cat 0",)
    text, with_title = found[3].forms
    assert with_title == f"money {text}"


@pytest.mark.parametrize("kind", TYPES)
def test_judged_texts_are_all_forms(tasks: dict[str, TaskConfig], kind: str) -> None:
    data = read_folder(tasks[kind])
    forms = {form for one in data.held_out() for form in one.forms}
    assert set(data.judged()) == forms
    config = EvaluationConfig(in_domain=(tasks[kind],))
    assert set(near_texts(config)[tasks[kind].name]) == forms
    assert read_folders(config) == {tasks[kind].name: list(data.held_out())}


@pytest.mark.parametrize("kind", TYPES)
def test_texts_of_a_task_of_mteb_are_those_of_its_folder(tasks: dict[str, TaskConfig], kind: str) -> None:
    """The folder made a task of mteb, in whose form mteb has its own data."""
    from boom_ray.evaluation.local_tasks import load_task

    data = read_folder(tasks[kind])
    found = list(texts_of(load_task(tasks[kind], seed=0), ["test"]))
    assert {(one.role, form) for one in found for form in one.forms} == {
        (one.role, form) for one in data.held_out() for form in one.forms
    }


class Odd:
    """As mteb has tasks with subsets, or of types that have neither passages nor known columns."""

    def __init__(self, dataset: Any, **attributes: Any) -> None:
        self.dataset = dataset
        self.metadata = type("Metadata", (), {"name": "Odd", "type": "Odd"})
        self.__dict__.update(attributes)


def test_subsets_splits_and_lists_of_texts() -> None:
    data = {split: {"a": [["x", split], ["y"]], "b": ["z"]} for split in ("dev", "test")}
    task = Odd({"de": data, "en": {"test": {"a": [], "b": ["w"]}}}, column_names=("a", "b"))
    assert list(texts_of(task, ["test"])) == [HeldOut("texts", (text,)) for text in ("x", "test", "y", "z", "w")]
    assert len(list(texts_of(task, ["test", "dev"]))) == 9


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (Odd({"test": {"a": ["x"]}}), "type Odd are not known"),
        (Odd({"dev": {"a": ["x"]}}, input_column_name="a"), "Odd has no text in test"),
    ],
)
def test_a_task_without_known_texts_is_an_error(task: Odd, text: str) -> None:
    with pytest.raises(EvaluationError, match=text):
        list(texts_of(task, ["test"]))
