"""Where members leave their trunk, what they cost, and that their keys are those of the same runs without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from boom_ray.artifacts.plan import Plan, Stage
from boom_ray.config import AverageLastConfig, ModelConfig, RunConfig, TrainingConfig
from boom_ray.config.load import validate
from boom_ray.errors import ConfigError
from boom_ray.training.branches import Branch, branch, branch_jobs, steps_of, trained_steps
from boom_ray.training.job import MemberJob, TrunkJob
from boom_ray.training.optimizer import learning_rate


def config(**changes: Any) -> TrainingConfig:
    usual = {"branches": True, "decay": "wsd", "decay_ratio": 0.2, "warmup_updates": 5}
    return TrainingConfig(**{**usual, **changes})


def make_job(**changes: Any) -> MemberJob:
    return MemberJob(
        name="any",
        bag="bag",
        bag_key="k",
        corpus="c",
        parts={},
        policies={},
        base="b",
        base_place="p",
        model=ModelConfig(base="b"),
        training=config(**changes),
        seed=4,
        prompts={},
        max_tokens=64,
    )


@pytest.mark.parametrize(
    ("ratio", "changes", "expected"),
    [
        (0.5, {}, Branch(50, 40)),
        (1.0, {}, Branch(100, 80)),
        (0.333, {}, Branch(33, 26)),
        (1.0, {"accumulation": 3}, Branch(100, 81)),  # 34 updates, the last one of one step; 7 of them fall
        (0.5, {"accumulation": 3}, Branch(51, 39)),
        (0.5, {"average_last": AverageLastConfig(snapshots=4, share=0.4)}, Branch(50, 34)),  # 35, 40, 45, 50
        (0.5, {"average_last": AverageLastConfig(snapshots=4, share=0.1)}, Branch(50, 40)),
        (0.5, {"warmup_updates": 45}, Branch(50, 45)),
        (0.5, {"decay_ratio": 1.0, "warmup_updates": 0}, Branch(50, 0)),
    ],
)
def test_a_branch_leaves_where_its_rate_falls_or_its_average_begins(ratio, changes, expected):
    assert branch(ratio, 100, config(**changes)) == expected


def test_a_branch_that_only_warms_up_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_updates=50 leaves nothing of the 50 updates of .* ratio 0\.5"):
        branch(0.5, 100, config(warmup_updates=50))


@given(
    st.floats(0.05, 1), st.integers(20, 400), st.integers(1, 4), st.floats(0.01, 1), st.integers(0, 60), st.floats(0, 1)
)
def test_until_the_fork_every_branch_has_the_trunks_rates(ratio, steps, each, decay, warm, final):
    """Bit for bit, and the first rate that differs comes right after: no step is trained twice without need."""
    own = config(accumulation=each, decay_ratio=decay, warmup_updates=warm, final_ratio=final)
    updates = -(-steps // each)
    total = max(1, int(ratio * updates + 0.5))
    assume(warm < total)
    found = branch(ratio, steps, own)
    trunk = TrunkJob.of(make_job(**{name: getattr(own, name) for name in own.model_fields_set}), found.fork, None)
    fork = found.fork // each
    assert found.fork == fork * each
    assert fork < total
    assert found.steps == min(steps, total * each)
    for update in range(fork + 1):
        assert learning_rate(update, total, own) == learning_rate(update, updates, trunk.training)
    if fork + 1 < total and final < 0.9:
        assert learning_rate(fork + 1, total, own) < learning_rate(fork + 1, updates, trunk.training)


def test_only_a_plan_of_one_curve_has_branches():
    arrays = (np.zeros(7, np.int32), np.zeros(7, np.int32), np.arange(8), np.arange(7))
    assert steps_of(Plan(("a",), *arrays), config()) == 7
    assert steps_of(Plan(("a",), *arrays), config(max_steps=5)) == 5
    with pytest.raises(ConfigError, match="has 2 stages, each with a rate of its own"):
        steps_of(Plan(("a",), *arrays, stages=(Stage("one", 3), Stage("two", 4))), config())


def test_the_cost_is_the_longest_trunk_and_every_fall():
    ratios, decay = (0.2, 0.4, 0.6, 0.8, 1.0), 0.1
    found = [branch(ratio, 1000, config(decay_ratio=decay)) for ratio in ratios]
    assert trained_steps(found) == 1000 * (1 - decay) * max(ratios) + 1000 * decay * sum(ratios) == 1200
    assert sum(one.steps for one in found) == 3000
    assert trained_steps([Branch(50, 40), Branch(50, 40)]) == 60


def test_the_trunk_is_trained_from_fork_to_fork():
    jobs = branch_jobs(make_job(), {"whole": 1.0, "half": 0.5, "same": 0.5, "odd": 0.1}, 100)
    by_name = {job.name: job for job in jobs}
    assert [(job.name, job.training.max_steps) for job in jobs] == [
        *(("whole", None), ("half", 50), ("same", 50), ("odd", 10))
    ]
    whole, half = by_name["whole"].trunk, by_name["half"].trunk
    assert whole is not None and half is not None
    assert (whole.steps, half.steps) == (80, 40)
    assert whole.trunk == half == by_name["same"].trunk
    assert half.trunk == by_name["odd"].trunk
    assert (half.trunk.steps, half.trunk.trunk) == (8, None)
    assert half.name == f"trunk-40~{half.key[:6]}"
    assert branch_jobs(make_job(decay_ratio=1.0, warmup_updates=0), {"a": 1.0}, 100)[0].trunk is None
    short = branch_jobs(make_job(max_steps=60), {"a": 0.5, "b": 1.0}, 60)
    assert [job.training.max_steps for job in short] == [30, 60]


def test_a_branch_has_the_key_of_the_same_run_without_a_trunk():
    plain = make_job(branches=False)
    whole, half = branch_jobs(make_job(), {"whole": 1.0, "half": 0.5}, 100)
    assert whole.key == plain.key
    assert half.key == replace(plain, training=plain.training.model_copy(update={"max_steps": 50})).key
    assert half.trunk.key != half.key
    assert half.trunk.kind == "trunk"


def test_a_trunks_key_holds_what_determines_its_state():
    def trunk(job: MemberJob) -> str:
        return TrunkJob.of(job, 40, None).key

    job = make_job()
    key = trunk(job)
    assert trunk(replace(job, prompts={"query": "q: "}, max_tokens=8, name="n")) == key
    assert trunk(make_job(decay_ratio=0.5, max_steps=70, average_last=AverageLastConfig())) == key
    assert TrunkJob.of(job, 40, TrunkJob.of(job, 20, None)).key == key
    others = [make_job(learning_rate=1e-4), make_job(warmup_updates=6), make_job(ema=0.9), replace(job, seed=5)]
    others += [make_job(parallelism="fsdp", resources={"workers": 2}), replace(job, bag="other")]
    assert len({key, TrunkJob.of(job, 41, None).key, *map(trunk, others)}) == 2 + len(others)


def test_branches_share_warm_up_and_rate():
    def load(**training: Any) -> RunConfig:
        corpus = {"datasets": [{"name": "a", "source": "a.jsonl", "task_type": "retrieval"}]}
        return validate(RunConfig, {"name": "r", "corpus": corpus, "training": training}, "run.yaml")

    with pytest.raises(ConfigError, match=r"training\.decay: must be wsd with branches, .* \(got linear\)"):
        load(branches=True, warmup_updates=3)
    with pytest.raises(ConfigError, match=r"training\.warmup_updates: must be set with branches"):
        load(branches=True, decay="wsd")
    with pytest.raises(ConfigError, match=r"training\.branches=true"):
        branch_jobs(make_job(branches=False), {"a": 1.0}, 100)
    assert load(branches=True, decay="wsd", warmup_updates=3).training.identity()["branches"]


def test_new_fields_are_in_keys_only_where_they_are_set():
    usual = TrainingConfig().identity()
    assert not {"branches", "warmup_updates"} & usual.keys()
    assert "warmup_ratio" in usual
    warm = TrainingConfig(warmup_updates=0, warmup_ratio=0.3).identity()
    assert warm["warmup_updates"] == 0
    assert warm == TrainingConfig(warmup_updates=0).identity()
    assert warm.keys() ^ usual.keys() == {"warmup_updates", "warmup_ratio"}
