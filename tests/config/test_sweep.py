from __future__ import annotations

from typing import Any

import pytest

from boom_ray.config import SweepConfig
from boom_ray.config.load import validate
from boom_ray.config.sweep import LEAST_SIZE, ParameterConfig, SimplexConfig, decides_members, label
from boom_ray.errors import ConfigError
from boom_ray.evaluation.proxies import proxy_of
from tests.sweeps.spaces import BAGS, METHODS, RUN, sweep


def fault(space: dict[str, Any], **search: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(SweepConfig, RUN | {"sweep": {"space": space} | search}, "s.yaml")
    return str(caught.value).removeprefix("s.yaml:\n  ")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"seed": {}}, "sweep.space.seed: give exactly one of choice, uniform"),
        ({"seed": {"choice": [1], "integer": [1, 2]}}, "got choice and integer"),
        ({"seed": {"choice": []}}, "sweep.space.seed.choice: there is nothing to choose from"),
        ({"seed": {"choice": [1, 2, 1]}}, "sweep.space.seed.choice: 1 is there twice"),
        ({"training.max_steps": {"choice": [1, True]}}, "sweep.space.training.max_steps.choice: true is there twice"),
        ({"bags.ratios": {"choice": [[0.5], [0.5]]}}, "sweep.space.bags.ratios.choice: [0.5] is there twice"),
        ({"seed": {"integer": [2, 2]}}, "sweep.space.seed.integer: must be [lowest, highest] with lowest < highest"),
        ({"training.temperature": {"log_uniform": [0, 1]}}, "log_uniform: must lie above 0"),
        ({"name": {"choice": ["a"]}}, "sweep.space.name: only keys below seed, bags, training, merge can be searched"),
        ({"seed": {"simplex": {}}}, "sweep.space.seed: simplex is for merge.weights"),
        ({"seed": {"ratios": {"grid": [1.0]}}}, "sweep.space.seed: ratios is for bags.ratios"),
        ({"bags.ratios": {"ratios": {"grid": [0.5, 0.5]}}}, "ratios must differ; got [0.5, 0.5]"),
        ({"bags.ratios": {"ratios": {"grid": [0.5], "members": [3, 2]}}}, "members must be [fewest, most]"),
        ({"merge.weights": {"simplex": {"layers": ["0-5", "0-5"]}}}, "0-5 is there twice"),
        ({"merge.weights": {"simplex": {"layers": ["rest"]}}}, "rest is what no group has; leave it out"),
        ({"merge.weights": {"simplex": {"steps": 0}}}, "steps: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_parameter_is_named(space, expected):
    assert expected in fault(space)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"merge.base": "none"}, "sweep.space.seed.when: merge.base is not searched; known: merge.method"),
        ({"seed": 1}, "sweep.space.seed.when: seed is not searched"),
        ({"training.epochs": 1}, "sweep.space.seed.when: training.epochs is no choice; conditions are on choices"),
        ({"merge.method": "tise"}, "sweep.space.seed.when: tise is no option of merge.method; known: multislerp"),
        ({"merge.method": []}, "sweep.space.seed.when: merge.method has no value here"),
    ],
)  # fmt: skip
def test_conditions_are_on_options_of_other_choices(when, expected):
    space = {"merge.method": METHODS, "training.epochs": {"integer": [1, 2]}, "seed": {"choice": [1, 2], "when": when}}
    assert expected in fault(space)


def test_conditions_may_be_on_names_lists_and_null():
    config = sweep(
        {
            "bags": BAGS,
            "training.max_steps": {"choice": [None, 10], "when": {"bags": ["two", "three"]}},
            "training.decay": {"choice": ["linear", "wsd"], "when": {"training.max_steps": None}},
            "training.betas": {"choice": [[0.9, 0.99], [0.9, 0.95]]},
            "training.eps": {"choice": [1e-8, 1e-6], "when": {"training.betas": [[0.9, 0.99]]}},
        }
    )
    assert config.sweep.space["training.decay"].when == {"training.max_steps": (None,)}
    assert config.sweep.space["training.eps"].when == {"training.betas": ([0.9, 0.99],)}


def test_conditions_must_not_go_round():
    space = {
        "seed": {"choice": [1, 2], "when": {"merge.method": "ties"}},
        "merge.method": METHODS | {"when": {"training.epochs": 2}},
        "training.epochs": {"choice": [1, 2], "when": {"seed": 1}},
    }
    assert "when: seed and training.epochs and merge.method wait for one another" in fault(space)


def test_the_order_of_choice():
    config = sweep(
        {
            "merge.weights": {"simplex": {}},
            "merge.parameters.density": {"uniform": [0, 1], "when": {"merge.method": "ties"}},
            "training.ema": {"choice": [0.9, None], "when": {"merge.method": "ties"}},
            "merge.method": METHODS,
            "seed": {"choice": [0, 1], "when": {"bags": "two"}},
            "bags": BAGS,
        }
    )
    assert config.sweep.ordered() == (
        "bags", "seed", "merge.method", "training.ema", "merge.parameters.density", "merge.weights",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("searcher", "key", "parameter", "expected"),
    [
        ("grid", "training.temperature", {"uniform": [0.01, 0.1]}, "searcher grid takes every combination"),
        ("learned", "training.temperature", {"log_uniform": [0.01, 0.1]}, "searcher learned takes every combination"),
        ("grid", "merge.weights", {"simplex": {}}, "simplex: searcher grid needs steps"),
        ("learned", "merge.weights", {"simplex": {"steps": 3}}, "searcher learned finds the weights itself"),
        ("learned", "merge.method", METHODS, "searcher learned finds the weights itself"),
        ("learned", "merge", {"choice": {"a": {}}}, "searcher learned finds the weights itself"),
    ],
)
def test_what_a_searcher_of_all_combinations_cannot_have(searcher, key, parameter, expected):
    found = fault({key: parameter}, searcher=searcher)
    assert found.startswith(f"sweep.space.{key}")
    assert expected in found


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"rungs": [None, 64]}, "sweep.rungs: must grow, and null (whole tasks) comes last"),
        ({"rungs": [64, 64]}, "sweep.rungs: must grow"),
        ({"rungs": [1, None]}, "sweep.rungs: sizes must be 2 or more, for a score compares; got [1, None]"),
        ({"rungs": [-3, None]}, "sweep.rungs: sizes must be 2 or more, for a score compares; got [-3, None]"),
        (
            {"rungs": [64, None], "objectives": [{"name": "a"}, {"name": "b"}]},
            "sweep.rungs: ASHA would drop trials by the first of sweep.objectives (a) alone",
        ),
        ({"rungs": [0]}, "sweep.rungs: sizes must be 2 or more"),
        ({"objectives": [{"name": "a"}, {"name": "a"}]}, "sweep.objectives: names must be unique"),
        ({"objectives": [{"name": "a"}, {"name": "b"}], "searcher": "gp"}, "sweep.searcher: gp takes one objective"),
        ({"objectives": [{"tasks": ["other"]}]}, "sweep.objectives.0.tasks: other is no task of evaluation.selection"),
    ],
)
def test_a_wrong_search_is_named(search, expected):
    assert expected in fault({"bags": BAGS}, **search)


def test_several_objectives_may_have_one_size():
    search = {"space": {"bags": BAGS}, "rungs": [64], "objectives": [{"name": "a"}, {"name": "b"}]}
    assert validate(SweepConfig, RUN | {"sweep": search}, "s.yaml").sweep.rungs == (64,)


def test_every_size_that_a_rung_may_have_is_one_that_a_task_may_have():
    config = validate(SweepConfig, RUN | {"sweep": {"space": {"bags": BAGS}, "rungs": [2, None]}}, "s.yaml")
    assert [task.size for task in proxy_of(config.evaluation.selection, LEAST_SIZE)] == [2]


def test_a_sweep_needs_tasks_to_choose_by_and_sizes_need_folders():
    with pytest.raises(ConfigError, match="a sweep chooses by the tasks"):
        sweep({"bags": BAGS}, evaluation={})
    hub = {"selection": [{"name": "STS12"}]}
    sweep({"bags": BAGS}, evaluation=hub)
    data = RUN | {"evaluation": hub, "sweep": {"space": {"bags": BAGS}, "rungs": [64, None]}}
    with pytest.raises(ConfigError, match=r"sweep.rungs: STS12 is mteb's own task"):
        validate(SweepConfig, data, "s.yaml")


def test_options_and_values():
    named = ParameterConfig(choice={"a": {"ratios": [0.5]}, "b": {}})
    assert named.options == ("a", "b")
    assert named.value("a") == {"ratios": [0.5]}
    plain = ParameterConfig(choice=(None, 2, [3]))
    assert plain.options == (None, 2, [3])
    assert [label(option) for option in plain.options] == ["null", "2", "[3]"]
    assert plain.value(2) == 2
    assert ParameterConfig(integer=(1, 4)).options == ()
    assert ParameterConfig(integer=(1, 4)).bounds == (1, 4)
    assert ParameterConfig(log_uniform=(0.1, 1)).bounds == (0.1, 1)
    assert SimplexConfig(layers=[3, "embeddings.*"]).parts == ("3", "embeddings.*", "rest")


def test_limits_are_no_part_of_a_search_s_identity():
    config = sweep({"bags": BAGS})
    more = config.sweep.model_copy(update={"trials": 99, "hours": 1.0, "patience": 3})
    assert more.identity() == config.sweep.identity()
    assert "resume" not in config.identity()
    assert decides_members("bags.ratios") and not decides_members("merge.weights")
