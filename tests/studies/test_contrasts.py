from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boom_ray.studies.contrasts as contrasts_module
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.compare import compare
from boom_ray.studies.contrasts import Contrasts
from boom_ray.studies.results import ArmResult, Cost, StudyResult
from tests.studies.planted import scores, study

STEP = st.integers(-40, 40).map(lambda n: n / 1024)  # exact in binary, so that shifting rounds nothing


@settings(max_examples=15, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=9), st.sampled_from([0.0, 1 / 128, 1 / 64]))
def test_the_tests_of_a_margin_are_those_against_a_model_that_is_worse_by_it(steps, margin):
    level = [0.5] * len(steps)
    new = [0.5 + step for step in steps]
    one = study({"bls": [level], "new": [new]}, in_domain=len(steps))
    found = Contrasts(one).between("new", "bls")["in_domain"].over_tasks(margin)
    easier = compare(scores([0.5 - margin] * len(steps), len(steps)), scores(new, len(steps))).groups["in_domain"]
    assert (found.wilcoxon, found.permutation, found.verdict) == (
        pytest.approx(easier.wilcoxon),
        pytest.approx(easier.permutation),
        easier.verdict,
    )
    if easier.interval is not None:
        assert found.interval == pytest.approx([end - margin for end in easier.interval], abs=1e-3)
    else:
        assert found.interval is None


def test_the_numbers_are_over_seeds_and_tasks():
    one = study({"bls": [[0.5, 0.5, 0.6], [0.5, 0.7, 0.6]], "new": [[0.6, 0.7, 0.5], [0.7, 0.8, 0.6]]}, in_domain=2)
    found = Contrasts(one).between("new", "bls")
    assert set(found) == {"in_domain", "out_of_domain", "all"}
    inside = found["in_domain"]
    assert (inside.first, inside.second) == (pytest.approx(0.55), pytest.approx(0.7))
    assert inside.seeds.by_seed == {0: pytest.approx(0.15), 1: pytest.approx(0.15)}
    assert inside.tasks == {"t0": pytest.approx(0.15), "t1": pytest.approx(0.15)}
    assert inside.aggregate.wins == 2 and inside.aggregate.tasks == 2
    assert found["all"].seeds.mean == pytest.approx(np.mean([0.15, 0.15, -0.05]))
    assert [one.identical for one in found.values()] == [False, False, False]


def test_seeds_that_only_one_arm_has_do_not_count():
    one = study({"bls": [[0.5, 0.5], [0.9, 0.9], [0.9, 0.9]], "new": [[0.6, 0.7]]})
    found = Contrasts(one).between("new", "bls")["all"]
    assert (found.first, found.second) == (pytest.approx(0.5), pytest.approx(0.65))
    assert list(found.seeds.by_seed) == [0]


@pytest.mark.parametrize(("tasks", "few"), [(1, True), (5, True), (6, False)])
def test_five_tasks_are_too_few(tasks, few):
    one = study({"bls": [[0.5] * tasks], "new": [[0.6] * tasks]}, in_domain=tasks)
    found = Contrasts(one).between("new", "bls")["all"]
    assert found.too_few_tasks == few
    assert (found.over_tasks().verdict == "tie") == few


def test_arms_that_are_the_same_everywhere_are_identical():
    one = study({"bls": [[0.5, 0.6], [0.5, 0.7]], "new": [[0.5, 0.6], [0.5, 0.8]]})
    found = Contrasts(one).between("new", "bls")
    assert {where: contrast.identical for where, contrast in found.items()} == {
        "in_domain": True,
        "out_of_domain": False,
        "all": False,
    }


def test_arms_that_cannot_be_compared_say_why():
    def run(name, seed, start=0):
        return ArmResult(name, seed, scores([0.5], start=start), Cost(1, 1, 1))

    runs = (run("a", 0), run("b", 1), run("c", 0, start=5))
    one = Contrasts(StudyResult("s", dict.fromkeys("abcd", ""), (0, 1), "a", runs))
    assert one.obstacle("a", "a") == "a is not compared with itself"
    assert one.obstacle("a", "b") == "a and b have no seed in common"
    assert one.obstacle("a", "c") == "a and c have no task in common"
    assert one.obstacle("a", "d") == "d has no result"
    assert one.obstacle("e", "a") == "e has no result"
    assert one.between("a", "b") == {}


def test_each_comparison_is_made_once(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(args[2])
        return compare(*args, **options)

    monkeypatch.setattr(contrasts_module, "compare", counted)
    found = Contrasts(study({"bls": [[0.5, 0.6]], "new": [[0.6, 0.5]]}))
    assert found.between("new", "bls") is found.between("new", "bls")
    found.between("bls", "new")
    assert calls == [("bls", "new"), ("new", "bls")]


def test_values_that_are_no_scores_are_refused():
    with pytest.raises(EvaluationError, match="scores lie between"):
        Contrasts(study({"bls": [[0.5, 0.6]], "new": [[50.0, 60.0]]})).between("new", "bls")
