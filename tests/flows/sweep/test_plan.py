"""What a sweep says that it would cost; figures by hand, and a store in which one member was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boom_ray.config import SweepConfig
from boom_ray.flows.sweep.plan import plan_lines
from boom_ray.store import Draft, Store
from boom_ray.training.job import KIND
from tests.sweeps.spaces import MIXED, sweep

RATE = {"training.learning_rate": {"log_uniform": [1e-5, 1e-4]}}
NESTED = {"choice": {"two": {"ratios": [0.8, 1.0]}, "five": {"ratios": [0.2, 0.4, 0.6, 0.8, 1.0]}}}
UNKNOWN = "hours        not known: the store has no member of this form and batch size on these datasets yet"
NAIVE = "full runs (one pass over all data each)"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def plan(store: Store, config: SweepConfig) -> list[str]:
    """The lines between those of the tasks and of the merges."""
    return plan_lines(config, store)[2:-1]


def small(space: dict[str, Any], trials: int, searcher: str = "tpe", **run: Any) -> SweepConfig:
    config = sweep(space, searcher, **run)
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"trials": trials})})


def train(store: Store, config: SweepConfig) -> None:
    """A corpus of 320 and 640 examples, and a member of 960 examples in 8 seconds."""

    def corpus(draft: Draft) -> None:
        draft.fingerprint = "corpus"
        draft.figures["datasets"] = {"a": {"rows": 320}, "b.c": {"rows": 640}}

    def member(draft: Draft) -> None:
        draft.fingerprint = "member"
        draft.figures |= {"examples": 960, "seconds": 8.0}

    made = store.materialize("corpus", {}, {}, corpus)
    spec = {"training": config.training.identity(), "model": config.model.identity()}
    store.materialize(KIND, spec, {"corpus": made.fingerprint}, member)


def test_a_continuous_parameter_costs_the_dearest_set_per_trial_and_hours_are_told(store):
    config = small(RATE | {"bags": NESTED}, 64)
    lines = plan(store, config)
    assert lines == [
        "members      training.learning_rate is continuous, so every trial may train its own: at most 320, 5 per trial",
        f"training     at most 192.00 {NAIVE}, 3.00 per trial",
        UNKNOWN,
    ]
    train(store, config)
    hours = 192 * 768 / 120 / 3600  # 3 whole batches of 256
    assert plan(store, config)[-1] == (
        f"hours        {hours:.2f} CPU-hours: 192.00 x 768 examples at 120.0 examples/s and member, the median of 1 in "
        f"the store"
    )


def test_the_ends_of_a_continuous_ratio_count(store):
    space = {"bags.members.0.ratio": {"uniform": [0.25, 0.75]}, "training.epochs": {"integer": [1, 3]}}
    bags = {"members": [{"name": "a", "ratio": 0.5}, {"name": "all", "ratio": 1.0}]}
    assert plan(store, small(space, 10, bags=bags))[:2] == [
        "members      bags.members.0.ratio is continuous, so every trial may train its own: at most 20, 2 per trial",
        f"training     at most 52.50 {NAIVE}, 5.25 per trial",
    ]


def test_more_sets_than_are_listed_are_not_called_continuous(store):
    space = {"seed": {"integer": [1, 10**9]}, "bags": NESTED}
    assert plan(store, small(space, 4))[:2] == [
        "members      there are more than 10,000 sets of members, so every trial may train its own: at most 20, 5 per "
        "trial",
        f"training     at most 12.00 {NAIVE}, 3.00 per trial",
    ]
    assert plan(store, small({"seed": {"choice": list(range(10_001))}}, 4)) == [
        "members      there are more than 10,000 sets of members, so every trial may train its own; what 4 of them "
        "cost is not known: there are more than 10,000 to compare"
    ]


def test_the_baseline_counts_where_it_is_trained(store):
    half = {"bags.ratios": {"choice": [[0.5], [0.25, 0.25]]}}
    assert plan(store, small(half, 8))[:2] == [
        "members      at most 4 distinct ones for 2 sets of members, the baseline included; what the store has is not "
        "trained again",
        f"training     at most 2.00 {NAIVE}; 2.00 if every set trained its own",
    ]
    assert "at most 3 distinct ones for 2 sets of members; what" in plan(store, small(half, 8, baseline=False))[0]
    both = {"bags.ratios": {"choice": [[0.5], [0.5, 1.0]]}}  # the baseline of the first is a member of the second
    assert plan(store, small(both, 8))[:2] == [
        "members      at most 2 distinct ones for 2 sets of members; what the store has is not trained again",
        f"training     at most 1.50 {NAIVE}; 2.00 if every set trained its own",
    ]
    assert plan(store, small(RATE, 8, bags={"ratios": [0.5]}))[:2] == [
        "members      training.learning_rate is continuous, so every trial may train its own: at most 9, 1 per trial, "
        "the baseline included",
        f"training     at most 5.00 {NAIVE}, 0.50 per trial",
    ]


def test_fewer_trials_than_sets_cost_no_more_than_the_dearest_of_them(store):
    seeds = {"seed": {"choice": list(range(9))}}
    assert plan(store, small(seeds, 2))[:2] == [
        "members      at most 4 distinct ones for 9 sets of members; what the store has is not trained again",
        f"training     at most 3.60 {NAIVE}; 3.60 if every set trained its own",
    ]


def test_sets_that_do_not_go_together_are_left_out(store):
    assert plan(store, small(MIXED | {"merge.weights": {"simplex": {}}}, 8, baseline=False)) == [
        "members      at most 4 distinct ones for 3 sets of members; what the store has is not trained again",
        f"training     at most 2.30 {NAIVE}; 3.60 if every set trained its own",
        "left out     sets of members whose values do not go together: 1; their trials fail",
        UNKNOWN,
    ]


def test_weights_for_other_members_do_not_leave_a_set_out(store):
    merges = {"choice": {"a": {"weights": "equal"}, "b": {"method": "linear", "weights": "equal"}}}
    found = plan(store, small({"bags": NESTED, "merge": merges}, 8, merge={"weights": [0.3, 0.7]}))
    assert found[0].startswith("members      at most 5 distinct ones for 2 sets of members;")


def test_a_grid_has_no_more_trials_than_points(store):
    space = {"merge.method": {"choice": ["multislerp", "linear"]}, "merge.weights": {"simplex": {"steps": 10}}}
    lines = plan_lines(small(space, 64, "grid"), store)
    assert lines[0] == "search       grid, seed 0: 22 trials, 4 at once; the space has 22 points, sweep.trials=64"
    assert lines[-1] == "merges       22, straight into live models; 2 into the store at the end"
    lines = plan_lines(small(space, 5, "grid"), store)
    assert lines[0] == "search       grid, seed 0: 5 trials, 4 at once"
    assert lines[-1].startswith("merges       5, straight")
