"""What becomes of a batch's members where some cannot be drawn, trained or kept; nothing is trained, and no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boom_ray.config import MergeConfig, RunConfig, SweepConfig
from boom_ray.errors import DataError, StoreError, TrainingError
from boom_ray.flows.members import Planned, _distinct, all_jobs
from boom_ray.flows.preparing import Prepared
from boom_ray.flows.sweep import scoring
from boom_ray.flows.sweep.scoring import TrialScorer
from boom_ray.merging.job import MergeInputs
from boom_ray.store import artifact_key
from boom_ray.sweeps.arena import Outcome
from boom_ray.sweeps.failures import Failures
from boom_ray.sweeps.job import TrialJob
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.trials import Answer, Ask
from boom_ray.training.job import KIND
from tests.flows.recording import bare_workspace
from tests.sweeps.planted import failed, sweep

RATE, BATCH = "training.learning_rate", "training.batch_size"
SPACE = {RATE: {"choice": [1e-4, 5e-5]}, BATCH: {"choice": [32, 4096]}}


@dataclass(frozen=True)
class Member:
    """A member's job as far as a sweep looks at it."""

    name: str
    rate: float
    batch: int

    @property
    def spec(self) -> dict[str, Any]:
        return {"bag": self.name.split("~")[0], "rate": self.rate, "batch": self.batch}

    @property
    def key(self) -> str:
        return artifact_key(KIND, self.spec, {})


@dataclass
class Kitchen:
    """A scorer whose bags of 4096 have no step, and whose training keeps members of some names to itself."""

    scorer: TrialScorer
    config: SweepConfig
    heard: list[tuple[list[str], bool]] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    failing: str = ""
    losing: str = ""
    store_fails: bool = False

    def run_of(self, rate: float, batch: int) -> RunConfig:
        return trial_config(self.config, {RATE: rate, BATCH: batch})

    def plan(self, space: Any, foundation: Any, configs: Sequence[RunConfig]) -> list[Planned]:
        if self.store_fails:
            raise StoreError("the disk is full")
        if any(config.training.batch_size == 4096 for config in configs):
            raise DataError("Bag bag-80 gives no step")
        plans: list[Any] = [
            Planned({}, {bag.name: self.job(bag.name, config) for bag in config.bags.resolved()}, None)  # type: ignore[misc]  # stand-ins
            for config in configs
        ]
        shown = {job.key: job for job in _distinct(all_jobs(plans))}
        return [replace(plan, jobs={name: shown[job.key] for name, job in plan.jobs.items()}) for plan in plans]

    def job(self, name: str, config: RunConfig) -> Member:
        return Member(name, config.training.learning_rate, config.training.batch_size)

    def train(self, space: Any, foundation: Any, planned: Sequence[Planned]) -> dict[str, Any]:
        """As `train_members`: by name."""
        jobs: list[Any] = all_jobs(planned)
        names = [job.name for job in jobs]
        assert len(set(names)) == len(names), names
        failed = [job.name for job in jobs if self.failing and self.failing in job.name]
        for job in jobs:
            if job.name not in failed and not (self.losing and self.losing in job.name):
                self.put(job)
        if failed:
            raise TrainingError("\n".join(["Some could not be trained:", *(f"  {name}: NaN" for name in failed)]))
        return {}

    def put(self, job: Member) -> None:
        if self.scorer.space.store.get(KIND, job.key) is None:
            self.trained.append(job.name)
        self.scorer.space.store.materialize(KIND, job.spec, {}, lambda draft: draft.figures.update(examples=5))


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    config = sweep(SPACE)
    space, _ = bare_workspace(tmp_path)
    foundation: Any = SimpleNamespace(evaluation=config.evaluation, base_ref=None, corpus=None)
    made = Kitchen(
        TrialScorer(
            *(space, foundation, config),
            lambda jobs, done: made.heard.append(([one.name for one in jobs], done)),
            Failures(space.store, "search"),
        ),
        config,
    )
    monkeypatch.setattr(scoring, "plan_members", made.plan)
    monkeypatch.setattr(scoring, "are_drawn", lambda store, foundation, configs: True)
    monkeypatch.setattr(scoring, "train", made.train)
    return made


def test_a_stored_namesake_hides_no_member_where_another_trial_has_no_bag(kitchen: Kitchen) -> None:
    fresh, undrawable, stored = (kitchen.run_of(*one) for one in ((1e-4, 32), (5e-5, 4096), (5e-5, 32)))
    for bag in stored.bags.resolved():
        kitchen.put(kitchen.job(bag.name, stored))
    kitchen.trained.clear()
    kitchen.scorer.train([fresh, undrawable, stored])
    assert [name.split("~")[0] for name in kitchen.trained] == ["bag-80", "bag-100"]
    for config in (fresh, stored):
        found = kitchen.scorer.trained(config)
        assert list(found.members) == [kitchen.job(bag.name, config).key for bag in config.bags.resolved()]
    with pytest.raises(TrainingError, match="gives no step"):
        kitchen.scorer.trained(undrawable)


def test_a_batch_without_any_bag_fails_with_the_reason(kitchen: Kitchen) -> None:
    kitchen.scorer.train([kitchen.run_of(rate, 4096) for rate in (1e-4, 5e-5)])
    with pytest.raises(TrainingError, match="gives no step"):
        kitchen.scorer.trained(kitchen.run_of(1e-4, 4096))
    assert not kitchen.heard


def test_a_member_that_is_not_there_always_has_a_reason(kitchen: Kitchen) -> None:
    kitchen.losing = "bag-80"
    with pytest.raises(TrainingError, match=r"^bag-80: trained without an error, but not in the store /"):
        kitchen.scorer.trained(kitchen.run_of(1e-4, 32))
    kitchen.losing, kitchen.failing = "", "bag-100"
    with pytest.raises(TrainingError, match=r"^bag-100: NaN$"):
        kitchen.scorer.trained(kitchen.run_of(5e-5, 32))


def test_a_store_that_cannot_be_written_is_no_trial_s_fault(kitchen: Kitchen) -> None:
    kitchen.store_fails = True
    with pytest.raises(StoreError, match="disk is full"):
        kitchen.scorer.train([kitchen.run_of(1e-4, 32)])


def test_a_trial_that_failed_before_is_neither_trained_nor_scored(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [{RATE: rate, BATCH: 32} for rate in (1e-4, 5e-5)]
    asks = [Ask(number, point, 0) for number, point in enumerate(points)]
    scored: list[int] = []

    def answers(asks: Sequence[Ask]) -> list[Answer]:
        scored.extend(ask.number for ask in asks)
        return [Answer(objectives={"score": 1.0}) for ask in asks]

    kitchen.scorer.failures.keep(failed(0, "no memory", point=points[0]))
    monkeypatch.setattr(kitchen.scorer, "_answers", answers)
    assert [(one.error, one.objectives.get("score")) for one in kitchen.scorer(asks)] == [("no memory", None), ("", 1)]
    assert scored == [1]
    kitchen.scorer.failures.forget()
    assert [one.error for one in kitchen.scorer(asks)] == ["", ""]


def test_members_are_heard_once_whether_trained_or_stored_and_trials_know_their_keys(kitchen: Kitchen) -> None:
    stored = kitchen.run_of(5e-5, 32)
    kitchen.put(kitchen.job("bag-80", stored))
    kitchen.scorer.train([stored])
    kitchen.scorer.train([stored, kitchen.run_of(1e-4, 32)])
    assert kitchen.heard == [
        (["bag-80"], True), (["bag-100"], False), (["bag-100"], True),
        (["bag-80", "bag-100"], False), (["bag-80", "bag-100"], True),
    ]  # fmt: skip
    assert kitchen.scorer.member_keys({RATE: 5e-5, BATCH: 32}) == {
        name: kitchen.job(name, stored).key for name in ("bag-80", "bag-100")
    }
    assert kitchen.scorer.member_keys({RATE: 5e-5, BATCH: 4096}) == {}


def test_what_a_merge_learnt_and_what_that_took_are_the_trial_s_once(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen.scorer.config = sweep(SPACE, searcher="learned", rungs=[8, None])
    monkeypatch.setattr(kitchen.scorer, "_rungs", [kitchen.config.evaluation.selection] * 2)

    def prepare(space: Any, inputs: MergeInputs, config: MergeConfig, ground: Any) -> Prepared:
        found = config.model_copy(update={"weights": (0.25, 0.75)})
        return Prepared(inputs, found, {"learned": {"scale": 1.5, "curve": [1.0]}}, seconds=40.0)

    def score(jobs: Sequence[TrialJob], report: Any) -> list[Outcome]:
        figures = {
            "scores": {"retrieval": 0.5, "sts": 0.7},
            "types": {"retrieval": "Retrieval", "sts": "STS"},
            "seconds": 2.0,
        }
        return [Outcome(job, {} if "trial 2" in job.name else figures, "bad" * ("trial 2" in job.name)) for job in jobs]

    monkeypatch.setattr(scoring, "prepare", prepare)
    monkeypatch.setattr(kitchen.scorer.arena, "score", score)
    points = [{RATE: 1e-4, BATCH: 32}, {RATE: 1e-4, BATCH: 32}, {RATE: 5e-5, BATCH: 32}]
    first = kitchen.scorer([Ask(number, point, 0) for number, point in enumerate(points)])
    assert [one.seconds for one in first] == [42.0, 2.0, 40.0]  # the second trial asks for what the first has learnt
    assert [one.found for one in first] == [{"weights": [0.25, 0.75], "scale": 1.5}] * 3
    assert [one.error for one in first] == ["", "", "bad"]
    (second,) = kitchen.scorer([Ask(0, points[0], 1)])
    assert second.seconds == 2.0
