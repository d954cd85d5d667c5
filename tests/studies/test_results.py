from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.errors import EvaluationError
from boom_ray.evaluation.comparison import TaskScore
from boom_ray.studies.results import ArmResult, Cost, Failed, StudyResult, from_json, to_json
from tests.studies.planted import scores, study

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=4)
QUERIES = st.none() | st.dictionaries(NAMES, NUMBERS, max_size=3)


@st.composite
def some_scores(draw):
    found = {}
    for task in draw(st.lists(NAMES, unique=True, max_size=3)):
        group = draw(st.sampled_from(["in_domain", "out_of_domain"]))
        found[task] = TaskScore(task, draw(NAMES), group, draw(NUMBERS), draw(QUERIES), draw(NAMES))
    return found


@st.composite
def studies(draw):
    titles = draw(st.dictionaries(NAMES, st.text(max_size=4), min_size=1, max_size=4))
    arms = st.sampled_from(list(titles))
    made = draw(st.lists(st.tuples(arms, st.integers(0, 3)), unique=True, max_size=4))
    costs = st.builds(Cost, NUMBERS, NUMBERS, st.integers(1, 9), NUMBERS)
    return StudyResult(
        name=draw(NAMES),
        titles=titles,
        seeds=tuple(draw(st.lists(st.integers(0, 3), unique=True))),
        baseline=draw(arms),
        runs=tuple(ArmResult(name, seed, draw(some_scores()), draw(costs)) for name, seed in made),
        base=draw(st.none() | some_scores()),
        failures=tuple(draw(st.lists(st.builds(Failed, arms, st.integers(0, 3), NAMES), max_size=2))),
    )


@given(studies())
def test_a_study_comes_back_from_its_json(one):
    text = json.dumps(to_json(one), allow_nan=False, sort_keys=True)
    again = from_json(json.loads(text))
    assert again == one
    assert list(again.titles) == list(one.titles)  # == does not look at the order
    assert [list(run.scores) for run in again.runs] == [list(run.scores) for run in one.runs]
    assert json.dumps(to_json(again), sort_keys=True) == text


def test_query_ids_are_written_once_for_all_runs():
    def run(seed, *ids):
        score = TaskScore("t", "Retrieval", "in_domain", 0.5, dict.fromkeys(ids, 0.5), "m")
        return ArmResult("a", seed, {"t": score}, Cost(1, 1, 1))

    found = to_json(StudyResult("s", {"a": ""}, (0, 1, 2), "a", (run(0, "x", "y"), run(1, "x", "y"), run(2, "y"))))
    assert found["queries"] == [["x", "y"], ["y"]]
    assert [one["scores"][0]["queries"] for one in found["runs"]] == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99, this version of boom_ray reads 1"),
        ({"runs": [{"arm": "bls"}]}, "cannot be read: KeyError"),
        ({"queries": 7, "runs": 7}, "cannot be read: TypeError"),
        ({"baseline": "gone"}, "no arm gone; it has bls"),
    ],
)
def test_results_that_cannot_be_read_are_refused(change, message):
    found = to_json(study({"bls": [[0.5]]})) | change
    with pytest.raises(EvaluationError, match=message):
        from_json(found)


def test_arms_and_seeds_are_in_the_order_that_was_asked_for():
    runs = [ArmResult(name, seed, {}, Cost(1, 1, 1)) for name, seed in (("b", 1), ("a", 7), ("a", 2), ("b", 2))]
    one = StudyResult("s", {"a": "", "b": "", "c": ""}, (2, 1), "a", tuple(runs))
    assert {name: list(found) for name, found in one.arms.items()} == {"a": [2, 7], "b": [2, 1], "c": []}
    assert list(one.arms) == ["a", "b", "c"]


def test_what_is_missing_is_known_with_the_reason():
    failures = [Failed("b", 1, "Out of memory."), Failed("b", 0, "Failed once, then made.")]
    one = study({"bls": [[0.5]] * 2, "b": [[0.5]], "c": []}, failures=failures)
    assert [(gone.arm, gone.seed, gone.error) for gone in one.missing] == [
        ("b", 1, "Out of memory."),
        ("c", 0, "was not made"),
        ("c", 1, "was not made"),
    ]


def test_tasks_are_those_of_any_run_and_of_the_base():
    one = StudyResult(
        "s",
        {"a": "", "b": ""},
        (0,),
        "a",
        (ArmResult("b", 0, scores([0.1, 0.2, 0.3]), Cost(1, 1, 1)), ArmResult("a", 0, scores([0.4]), Cost(1, 1, 1))),
        base=scores([0.5, 0.5], start=9),
    )
    assert {task: score.value for task, score in one.tasks.items()} == {
        "t0": 0.4,
        "t1": 0.2,
        "t2": 0.3,
        "t9": 0.5,
        "t10": 0.5,
    }


@pytest.mark.parametrize(
    ("runs", "failures", "message"),
    [
        ([("x", 0)], [], "has no arm x; it has a"),
        ([], [Failed("y", 0, "bad")], "has no arm y"),
        ([("a", 0), ("a", 1), ("a", 0)], [], "has arm a with seed 0 more than once"),
    ],
)
def test_arms_that_nobody_asked_for_and_twins_are_refused(runs, failures, message):
    made = tuple(ArmResult(name, seed, {}, Cost(1, 1, 1)) for name, seed in runs)
    with pytest.raises(EvaluationError, match=message):
        StudyResult("s", {"a": ""}, (0,), "a", made, failures=tuple(failures))
