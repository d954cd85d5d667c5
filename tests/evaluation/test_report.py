from __future__ import annotations

import pytest

from boom_ray.evaluation.report import gains, markdown, means, table
from boom_ray.evaluation.scores import Group, Score


def score(model: str, task: str, value: float, group: Group = "in_domain") -> Score:
    return Score(model, task, "STS", group, "cosine_spearman", value, 1.0, False)


SCORES = [
    score("base", "a", 0.5),
    score("base", "b", 0.7),
    score("base", "c", 0.2, "out_of_domain"),
    score("merged", "a", 0.75),
    score("merged", "c", 0.3, "out_of_domain"),
]


def test_means_are_over_all_tasks_of_a_group_or_not_given() -> None:
    found = means(SCORES)
    assert found["base"] == {"in_domain": pytest.approx(0.6), "out_of_domain": 0.2}
    assert found["merged"] == {"in_domain": None, "out_of_domain": 0.3}


def test_gains_are_paired() -> None:
    assert gains(SCORES, "merged", "base") == pytest.approx({"a": 0.25, "c": 0.1})
    with pytest.raises(KeyError):
        gains(SCORES, "merged", "nobody")


def test_table_has_every_task_and_both_means() -> None:
    rows = table(SCORES)
    assert rows[1] == {"model": "merged", "a": 0.75, "b": None, "c": 0.3, "in_domain": None, "out_of_domain": 0.3}
    assert list(rows[0]) == ["model", "a", "b", "c", "in_domain", "out_of_domain"]
    assert "out_of_domain" not in table(SCORES[:2])[0]


def test_markdown_marks_the_best_and_aligns() -> None:
    assert markdown(table(SCORES), digits=2).splitlines() == [
        "| model  |        a |        b |        c | in_domain | out_of_domain |",
        "| ------ | -------: | -------: | -------: | --------: | ------------: |",
        "| base   |     0.50 | **0.70** |     0.20 |  **0.60** |          0.20 |",
        "| merged | **0.75** |        – | **0.30** |         – |      **0.30** |",
    ]
    assert markdown([]) == ""
