from __future__ import annotations

import pytest

from boom_ray.config import EvaluationConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.benchmarks import check_tasks
from boom_ray.evaluation.catalog import expand


def config(*benchmarks: dict, **groups: list) -> EvaluationConfig:
    return EvaluationConfig(benchmarks=benchmarks, **groups)


def test_a_benchmark_is_its_tasks_with_their_splits_and_subsets():
    found = expand(config({"name": "MTEB(eng, v2)", "group": "in_domain"}, {"name": "MTEB(Code, v1)"}))
    assert len(found.in_domain) == 41
    assert len(found.out_of_domain) == 12
    assert found.benchmarks == ()
    tasks = {task.name: task for task in found.tasks}
    assert (tasks["STS17"].subsets, tasks["STS17"].split) == (("en-en",), "test")
    assert tasks["ArguAna"].subsets == ()
    check_tasks(found)  # mteb knows every one of them


def test_several_splits_are_one_task():
    found = expand(config({"name": "MTEB(Multilingual, v2)", "types": ["Classification"]}))
    several = [task for task in found.out_of_domain if task.extra_splits]
    assert several
    check_tasks(EvaluationConfig(out_of_domain=tuple(several)))


def test_types_exceptions_and_what_is_named_already():
    rule = {"name": "MTEB(eng, v2)", "types": ["STS"], "without": ["STS12"]}
    own = {"name": "STSBenchmark", "instruction": "Same meaning?"}
    found = expand(config(rule, out_of_domain=[own]))
    names = [task.name for task in found.out_of_domain]
    assert names[0] == "STSBenchmark"
    assert found.out_of_domain[0].instruction == "Same meaning?"
    assert "STS12" not in names and "STS13" in names
    assert len(set(names)) == len(names) == 8


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"name": "MTEB(english)"}, r"has no benchmark MTEB\(english\); did you mean .*MTEB\(eng, v2\)"),
        ({"name": "MTEB(eng, v2)", "types": ["Sts"]}, "types: there is no type in .* named Sts; near: .*STS"),
        ({"name": "MTEB(eng, v2)", "without": ["STS1"]}, "without: there is no task in .* named STS1; near: STS1"),
    ],
)
def test_unknown_names_have_suggestions(rule, message):
    with pytest.raises(EvaluationError, match=message):
        expand(config(rule))
