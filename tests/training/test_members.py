"""Members on a real Ray cluster: side by side, queued, failing alone, and surviving a killed worker."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from boom_ray.bags.sampling import BagRule
from boom_ray.bags.stage import BagJob, make_bags
from boom_ray.config import (
    DatasetConfig,
    MixtureConfig,
    ModelConfig,
    ProgressScoresConfig,
    ResourcesConfig,
    TrainingConfig,
)
from boom_ray.errors import ConfigError, TrainingError
from boom_ray.events import Event
from boom_ray.model.encoder import load_encoder
from boom_ray.model.folder import weights_fingerprint
from boom_ray.model.losses.policy import policy_of
from boom_ray.store import Artifact, Store
from boom_ray.training.base import MODEL, BaseJob, make_base
from boom_ray.training.job import MemberJob
from boom_ray.training.members import members_at_once, train_members
from boom_ray.training.scores import STAGE as SCORES
from tests.processes import descendants
from tests.tiny_model import make_tiny_model
from tests.token_corpus import write_corpus

POLICIES = {
    name: policy_of(DatasetConfig(name=name, source="-", task_type=kind), 0.02)
    for name, kind in (("a", "retrieval"), ("b", "classification"))
}
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model")


def make_jobs(
    store: Store, base: Path, rates: dict[str, float], workers: int | tuple[int, int], times: int = 1, **changes: object
) -> list[MemberJob]:
    """Members of 60 · ``times`` steps."""
    parts = write_corpus(store, {"a": 320 * times, "b": 160 * times})
    resources = ResourcesConfig(workers=workers, cpus_per_worker=1, memory_gb_per_worker=0.5)
    settings = {"batch_size": 8, "negatives": 2, "precision": "float32", "dropout": 0.1, "checkpoint_every": 5}
    training = TrainingConfig(**{**settings, "log_every": 2, "resources": resources, **changes})
    rules = [BagRule(1.0, 0, draw) for draw in range(len(rates))]
    mixture = MixtureConfig().identity()
    bag_jobs = [
        BagJob(name, rule, rule.draw, 8, 1, mixture, 0, "c", parts) for name, rule in zip(rates, rules, strict=True)
    ]
    bags = make_bags(store, bag_jobs)
    model = ModelConfig(base=str(base))
    start = make_base(store, BaseJob(model, weights_fingerprint(base), "digest", {}, 64))
    return [
        MemberJob(
            name=name,
            bag=bags[name].fingerprint,
            bag_key=bags[name].key,
            parts=parts,
            policies=POLICIES,
            corpus="c",
            base=start.fingerprint,
            base_place=start.place(MODEL),
            model=model,
            training=training.model_copy(update={"learning_rate": rate}),
            seed=4,
            prompts={},
            max_tokens=64,
            longest=64,
        )
        for name, rate in rates.items()
    ]


def test_members_are_queued_fail_alone_and_are_trained_once(ray_cluster, tmp_path, base):
    store = Store(tmp_path / "store")
    jobs = make_jobs(store, base, {"good": 1e-3, "broken": 1e30, "other": 1e-3}, workers=2)
    with pytest.raises(TrainingError) as failure:
        train_members(store, jobs)
    text = str(failure.value)
    assert "1 of 3 members" in text
    assert "broken: Step" in text
    assert "good" in text
    assert "Run the same command again" in text
    events: list[Event] = []
    done = train_members(store, [jobs[0], jobs[2]], report=events.append)
    assert [(event.unit, event.note) for event in events] == [("good", "stored"), ("other", "stored")]
    assert done["good"].figures["steps"] == 60
    assert len(done["good"].figures["curve"]) == 30
    assert not (tmp_path / "store" / "training" / jobs[0].key).exists()
    assert done["good"].fingerprint != done["other"].fingerprint


class KillOnce:
    """A report that kills one training worker of this session's cluster once some checkpoints have arrived.

    Args:
        store: where the member is trained.
        checkpoints: so many.
        damage: then cut the files of all but the oldest.
    """

    def __init__(self, store: Store, checkpoints: int = 1, damage: bool = False) -> None:
        self.runs = Path(store.root) / "training"
        self.checkpoints, self.damage = checkpoints, damage
        self.killed = False
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        arrived = sum(path.read_text().count("step0") for path in self.runs.glob("*/checkpoint_man*"))
        if event.stage != "members" or arrived < self.checkpoints or self.killed:
            return
        for process in descendants("RayTrainWorker")[:1]:
            process.kill()
            self.killed = True
        for path in sorted(self.runs.glob("*/step0*/state-*"))[1:] if self.damage else []:
            path.write_bytes(path.read_bytes()[:100])


KILLS = {
    "one": (1, {}, {}),
    "damaged": (1, {"keep_checkpoints": 4}, {"checkpoints": 4, "damage": True}),
    "two": (2, {"dropout": 0.0, "ema": 0.9}, {}),
    "elastic": ((1, 2), {"dropout": 0.0, "ema": 0.9}, {}),
}


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, tmp_path_factory, base) -> Callable[[str], Artifact]:
    """A case's member without a kill; the first two and the last two are the same."""

    @functools.cache
    def train(case: str) -> Artifact:
        workers, changes, _ = KILLS[case]
        store = Store(tmp_path_factory.mktemp("calm"))
        return train_members(store, make_jobs(store, base, {"m": 1e-3}, workers, 4, **changes))["m"]

    return lambda case: train({"damaged": "one", "elastic": "two"}.get(case, case))


@pytest.mark.parametrize("case", KILLS)
def test_a_killed_worker_continues_and_ends_with_the_same_bytes(ray_cluster, tmp_path, base, undisturbed, case):
    workers, changes, how = KILLS[case]
    store = Store(tmp_path)
    jobs, report = make_jobs(store, base, {"m": 1e-3}, workers, 4, **changes), KillOnce(store, **how)
    member = train_members(store, jobs, report=report)["m"]
    assert report.killed
    assert any("continues at step" in event.note for event in report.events)
    assert member.figures["resumed_at"] > 0
    assert member.fingerprint == undisturbed(case).fingerprint
    assert not (tmp_path / "training" / jobs[0].key).exists()


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_workers_share_a_member_and_leave_scores_on_the_way(ray_cluster, tmp_path, base, parallelism):
    store, events = Store(tmp_path / "store"), []
    scores = ProgressScoresConfig(every=20, cpus=0.5)
    shared = {"parallelism": parallelism, "scores": scores, "ema": 0.9, "checkpoint_minutes": 0.0001}
    (job,) = make_jobs(store, base, {"m": 1e-3}, workers=2, **shared)
    steps: list[int] = []

    def report(event: Event) -> None:
        events.append(event)
        if event.stage == SCORES:
            steps.append(int(event.done))

    member = train_members(store, [job], report=report, scorer=parameter_count)["m"]
    assert steps == [20, 40]
    counts = {event.figures["score/parameters"] for event in events if event.stage == SCORES}
    assert counts == {float(sum(one.numel() for one in load_encoder(base, ModelConfig()).parameters()))}
    (alone,) = make_jobs(store, base, {"m": 1e-3}, workers=1, dropout=0.0, ema=0.9)
    (same,) = make_jobs(store, base, {"m": 1e-3}, workers=2, dropout=0.0, **shared)
    assert same.key == alone.key  # without dropout the number of workers is no part of a member
    assert member.figures["curve"][0][1] > member.figures["curve"][-1][1]


def parameter_count(folder: Path) -> dict[str, float]:
    """A scorer that looks at the whole model."""
    return {"parameters": float(sum(one.numel() for one in load_encoder(folder, ModelConfig()).parameters()))}


def test_a_member_that_another_job_trains_is_waited_for(ray_cluster, tmp_path, base):
    store = Store(tmp_path / "store")
    jobs = make_jobs(store, base, {"m": 1e-3}, workers=1)
    found: dict[str, dict[str, Artifact]] = {}
    events: dict[str, list[Event]] = {"one": [], "two": []}

    def work(name: str) -> None:
        found[name] = train_members(Store(tmp_path / "store"), jobs, report=events[name].append)

    threads = [threading.Thread(target=work, args=(name,)) for name in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found["one"]["m"] == found["two"]["m"]
    waited = [name for name, some in events.items() if any("another job trains it" in event.note for event in some)]
    trained = [name for name, some in events.items() if any("loss" in event.figures for event in some)]
    assert len(waited) == len(trained) == 1
    assert waited != trained


def test_an_elastic_member_trains_with_the_workers_there_is_room_for(ray_cluster, tmp_path, base):
    store = Store(tmp_path / "store")
    (job,) = make_jobs(store, base, {"m": 1e-3}, workers=(1, 6), dropout=0.0)
    assert train_members(store, [job])["m"].figures["steps"] == 60


def test_a_member_larger_than_the_cluster_is_refused_at_once(ray_cluster):
    with pytest.raises(ConfigError, match=r"needs 99 workers .* room for 4 at once"):
        members_at_once(ResourcesConfig(workers=99), 1, autoscaling=False)
    assert members_at_once(ResourcesConfig(workers=2, memory_gb_per_worker=0.1), 3, autoscaling=False) == 2
    assert members_at_once(ResourcesConfig(workers=99), 3, autoscaling=True) == 3


def test_tokens_pooling_and_policy_are_in_the_key(ray_cluster, tmp_path, base):
    store = Store(tmp_path)
    (job,) = make_jobs(store, base, {"m": 1e-3}, workers=1)
    others = [
        replace(job, corpus="other tokens"),
        replace(job, base="other base"),
        replace(job, policies={"a": POLICIES["a"], "b": replace(POLICIES["b"], temperature=0.5)}),
        replace(job, prompts={"query": "q: "}),
        replace(job, training=job.training.model_copy(update={"learning_rate": 2e-3})),
    ]
    assert len({one.key for one in [job, *others]}) == 1 + len(others)
    moved = job.training.model_copy(update={"log_every": 7, "checkpoint_every": 3})
    assert replace(job, name="n", bag_key="k", parts={}, base_place="p", training=moved).key == job.key
