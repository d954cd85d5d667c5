from __future__ import annotations

from typing import Any

import pytest

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import ConfigError
from boom_ray.sweeps import check
from boom_ray.sweeps.check import check_rungs, check_space
from tests.evaluation.task_folders import write_jsonl, write_task
from tests.sweeps.spaces import BAGS, METHODS, sweep

TIES = {"merge.method": "ties"}
GROUPS = {"simplex": {"layers": ["0"]}}


def fault(space: dict[str, Any], searcher: str = "tpe", **run: Any) -> str:
    config = sweep(space, searcher, **run)
    with pytest.raises(ConfigError) as caught:
        check_space(config)
    return str(caught.value)


def test_every_option_and_both_ends_are_tried_under_every_condition(monkeypatch):
    tried = []
    monkeypatch.setattr(check, "_try", lambda config, point, told: tried.append(point))
    scale = {"uniform": [0.5, 1.5], "when": {"merge.method": ["task_arithmetic", "ties"]}}
    check_space(sweep({"merge.method": METHODS, "merge.parameters.scale": scale, "merge.weights": {"simplex": {}}}))
    uneven = {"merge.weights": [0.3333, 0.6667]}
    assert tried[0] == {"merge.method": "multislerp"} | uneven
    assert tried[1:] == [
        {"merge.method": "multislerp"} | uneven,
        {"merge.method": "task_arithmetic", "merge.parameters.scale": 0.5} | uneven,
        {"merge.method": "ties", "merge.parameters.scale": 0.5} | uneven,
        {"merge.method": "task_arithmetic", "merge.parameters.scale": 1.5} | uneven,
        {"merge.method": "ties", "merge.parameters.scale": 1.5} | uneven,
    ]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            {"training.learning_rate": {"choice": [-1, 1e-4]}},
            "sweep.space.training.learning_rate: -1 cannot be used:\n  training.learning_rate: Input should be greater",
        ),
        (
            {"training.learning_rate": {"choice": [1e-4, "fast"]}},
            "sweep.space.training.learning_rate: fast cannot be used:",
        ),
        (
            {"merge.method": METHODS, "merge.parameters.density": {"uniform": [0.5, 1.5], "when": TIES}},
            "sweep.space.merge.parameters.density: 1.5 cannot be used:\n  merge.parameters.density: Input should be",
        ),
        (
            {"merge.method": METHODS, "merge.parameters.density": {"uniform": [0.5, 0.9]}},
            "sweep.space.merge.parameters.density: 0.5 cannot be used:\n  merge.parameters.density: multislerp has no",
        ),
        (
            {"merge.method": {"choice": ["ties", "slrp"]}},
            "sweep.space.merge.method: slrp cannot be used:\n  merge.method: there is no method slrp; did you mean sl",
        ),
        (
            {"training.epoch": {"integer": [1, 2]}},
            "sweep.space.training.epoch: 1 cannot be used:\n  training.epoch: unknown key; did you mean epochs?",
        ),
        (
            {"training.batch_size": {"uniform": [8, 9.5]}},
            "sweep.space.training.batch_size: 9.5 cannot be used:\n  training.batch_size: Input should be a valid int",
        ),
        (
            {"bags.mixture.weights.nowhere": {"uniform": [0.5, 2]}},
            "sweep.space.bags.mixture.weights.nowhere: 0.5 cannot be used:\n  bags.mixture.weights names nowhere",
        ),
        (
            {"bags": {"choice": {"a": {"ratios": [0.5]}, "b": {"ratio": [0.5]}}}},
            "sweep.space.bags: b cannot be used:\n  bags.ratio: unknown key; did you mean ratios?",
        ),
        (
            {"training.log_every": {"choice": [1, 2]}},
            "sweep.space.training.log_every: says how a run goes and changes no result",
        ),
        (
            {"merge.weights": {"simplex": {"layers": ["5-2"]}}},
            'sweep.space.merge.weights: {"5-2":[0.3333,0.6667],"rest":[0.3333,0.6667]} cannot be used:\n  merge.rule',
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(space, expected):
    assert expected in fault(space)


@pytest.mark.parametrize(
    ("space", "run", "expected"),
    [
        (
            {"merge.method": {"choice": ["linear", "model_stock"]}, "merge.weights": {"simplex": {}}},
            {},
            "sweep.space.merge.method: model_stock cannot be used: merge.weights: model_stock has no place for",
        ),
        (
            {"bags": BAGS},
            {"merge": {"method": "slerp"}},
            "sweep.space.bags: three cannot be used: slerp merges exactly 2 members; there are 3.",
        ),
        (
            {"merge.base": {"choice": ["none", "base"]}},
            {"merge": {"method": "linear"}},
            "sweep.space.merge.base: base cannot be used: linear works on whole weights",
        ),
        (
            {"bags": BAGS},
            {"merge": {"weights": [0.5, 0.5]}},
            "sweep.space.bags: three cannot be used:\n  merge.weights has 2 numbers for 3 bags",
        ),
        (
            {"merge.method": {"choice": ["linear", "self_positioning"]}, "merge.weights": GROUPS},
            {},
            "sweep.space.merge.method: self_positioning cannot be used: self_positioning looks at the whole model here",
        ),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_told_without_members(space, run, expected):
    assert expected in fault(space, **run)


def test_seeds_are_not_searched_where_the_base_follows_from_the_seed():
    space = {"seed": {"choice": [0, 1]}}
    found = fault(space, model={"dense": [{"dimension": 8}]})
    assert found.startswith("sweep.space.seed: the first weights of model.dense follow from the seed")
    check_space(sweep(space))
    check_space(sweep({"training.epochs": {"integer": [1, 2]}}, model={"dense": [{"dimension": 8}]}))


def test_conditions_that_exclude_one_another_are_told():
    space = {
        "merge.method": METHODS,
        "bags": BAGS | {"when": {"merge.method": "multislerp"}},
        "merge.parameters.density": {"uniform": [0.1, 0.9], "when": {"merge.method": "ties", "bags": "two"}},
    }
    assert fault(space) == (
        "sweep.space.merge.parameters.density.when: its conditions exclude one another, so it would never apply."
    )


def test_a_learned_search_is_checked_with_its_method():
    assert "sweep.space.merge.parameters.density: 0.5 cannot be used" in fault(
        {"bags": BAGS, "merge.parameters.density": {"choice": [0.5]}}, "learned"
    )
    check_space(sweep({"bags": BAGS, "merge.parameters.scale": {"choice": [0.9, 1.1]}}, "learned"))


def test_weights_for_other_bags_are_named():
    space = {"merge.weights": {"choice": [[0.2, 0.3, 0.5]]}, "bags": {"choice": {"two": {"ratios": [0.5, 1.0]}}}}
    expected = "sweep.space.merge.weights: [0.2,0.3,0.5] cannot be used:\n  merge.weights has 3 numbers for 2 bags"
    assert fault(space, bags={"ratios": [0.5, 0.6, 0.7]}) == expected


def test_first_values_that_are_no_run_only_together():
    space = {"merge.parameters.density": {"choice": [0.2]}, "merge.parameters.epsilon": {"choice": [0.3]}}
    found = fault(space, merge={"method": "della_linear"})
    assert found.startswith(
        "sweep.space: the first values of all parameters (merge.parameters.density=0.2, merge.parameters.epsilon=0.3) "
        "do not go together:\n  merge.parameters: density 0.2 plus and minus epsilon 0.3"
    )


def test_a_large_space_of_the_issue_can_be_used():
    check_space(
        sweep(
            {
                "bags": BAGS,
                "seed": {"choice": [0, 1, 2]},
                "bags.mixture.temperature": {"uniform": [1, 4]},
                "bags.mixture.weights.a": {"log_uniform": [0.5, 2]},
                "training.learning_rate": {"log_uniform": [1e-5, 1e-3]},
                "training.temperature": {"choice": [0.02, 0.05]},
                "training.epochs": {"integer": [1, 3]},
                "merge.method": {"choice": ["multislerp", "karcher", "task_arithmetic", "ties"]},
                "merge.base": {"choice": ["none", "base"], "when": {"merge.method": ["multislerp", "karcher"]}},
                "merge.parameters.density": {"uniform": [0.1, 1], "when": {"merge.method": "ties"}},
                "merge.parameters.scale": {"uniform": [0.5, 1.5], "when": {"merge.method": ["task_arithmetic"]}},
                "merge.weights": {"simplex": {"layers": ["0-2", "3-5"]}},
            }
        )
    )  # fmt: skip


def test_sizes_at_which_a_task_cannot_be_scored_are_told(tmp_path):
    """One score is rare: a proxy of two rows takes two of the frequent one, one of five has both."""
    rows = [{"sentence1": f"red {n}", "sentence2": f"blue {n}", "score": float(n == 3)} for n in range(9)]
    write_jsonl(tmp_path / "rare" / "test.jsonl", rows)
    rare = TaskConfig(name="rare", path=str(tmp_path / "rare"), type="pair")
    evaluation = EvaluationConfig(selection=(write_task(tmp_path / "sts", "sts"), rare))
    with pytest.raises(ConfigError) as caught:
        check_rungs((2, 8, None), evaluation)
    assert str(caught.value) == (
        "sweep.rungs: 2 is too small; take larger sizes.\nTask rare.2: its proxy of size 2 would not hold two "
        "different scores, which a score needs. Set its size to 5 or more."
    )
    check_rungs((5, 8, None), evaluation)
    check_rungs((None,), evaluation)
