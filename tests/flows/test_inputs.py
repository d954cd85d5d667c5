from __future__ import annotations

from typing import Any

from boom_ray.config import DatasetConfig, RunConfig
from boom_ray.flows.inputs import prompts


def config(*datasets: dict[str, Any], **model: str) -> RunConfig:
    made = [DatasetConfig(**{"source": "-", "task_type": "retrieval", **one}) for one in datasets]
    return RunConfig(name="r", corpus={"datasets": made}, model=model)


INSTRUCT = {"query_template": "Instruct: {task}\nQuery: {text}"}


def test_without_templates_nothing_is_stored():
    assert prompts(config({"name": "a"}, {"name": "b", "task_type": "pair"})) == {}


def test_one_prompt_for_all_is_that_of_queries():
    found = prompts(config({"name": "a", "instruction": "Find."}, {"name": "b", "instruction": "Find."}, **INSTRUCT))
    assert found == {"query": "Instruct: Find.\nQuery: ", "document": ""}


def test_prompts_that_differ_are_stored_by_dataset_with_those_of_their_passages():
    found = prompts(
        config(
            {"name": "a", "instruction": "Find."},
            {"name": "b", "instruction": "Same?", "task_type": "pair"},
            {"name": "c", "instruction": "Code.", "passage_instruction": "code: "},
            passage_template="{task}{text}",
            **INSTRUCT,
        )
    )
    assert found == {
        "a": "Instruct: Find.\nQuery: ",
        "b": "Instruct: Same?\nQuery: ",
        "c": "Instruct: Code.\nQuery: ",
        "document": "",
        "b-document": "Instruct: Same?\nQuery: ",  # symmetric: passages are written as queries
        "c-document": "code: ",
    }


def test_one_prompt_of_passages_is_that_of_documents():
    found = prompts(config({"name": "a"}, query_template="query: {text}", passage_template="passage: {text}"))
    assert found == {"query": "query: ", "document": "passage: "}
