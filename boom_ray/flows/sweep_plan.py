"""What a sweep would cost, told without starting it: distinct members, full runs, hours, merges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from boom_ray.bags.stage import rule_of
from boom_ray.config import RunConfig, SweepConfig
from boom_ray.hashing import digest
from boom_ray.store import Store
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.reach import reachable
from boom_ray.training.job import KIND


@dataclass(frozen=True)
class Share:
    """One distinct member that a sweep may train.

    Attributes:
        key: what tells it from others, as far as the configuration says.
        share: of all examples, times passes over them; 1 is one pass over everything.
    """

    key: str
    share: float


def shares(config: RunConfig) -> list[Share]:
    """The members of a configuration, without the baseline."""
    found = []
    ratios = {bag.name: bag.ratio or 0.0 for bag in config.bags.resolved()}
    for bag in config.bags.resolved():
        rule = rule_of(bag, config.bags, config.seed)
        ratio = 1 - ratios[bag.complement_of] if bag.complement_of else ratios[bag.name]
        decides = [repr(rule), config.bags.mixture.identity(), config.training.identity(), config.seed]
        found.append(Share(digest(decides), ratio * config.training.epochs))
    return found


def plan_lines(config: SweepConfig, store: Store) -> list[str]:
    """The plan in words."""
    sweep = config.sweep
    reached = reachable(config)
    lines = [f"search       {sweep.searcher}, seed {sweep.seed}: {sweep.trials} trials, {sweep.batch} at once"]
    sizes = ", ".join("whole" if size is None else f"{size}" for size in sweep.rungs)
    lines.append(f"tasks        {len(config.evaluation.selection)} selection tasks; sizes: {sizes}")
    if reached is None:
        per_trial = shares(trial_config(config, {}))
        lines.append(
            f"members      a training parameter is continuous, so every trial trains its own: {len(per_trial)} members "
            f"and {sum(one.share for one in per_trial):.2f} full runs as configured, up to {sweep.trials} times that"
        )
    else:
        lines += _members([trial_config(config, point) for point in reached], config, store)
    lines.append(f"merges       {sweep.trials}, straight into live models; 2 into the store at the end")
    return lines


def _members(configs: Sequence[RunConfig], config: SweepConfig, store: Store) -> Iterator[str]:
    distinct = {one.key: one for own in configs for one in shares(own)}
    naive = sum(one.share for own in configs for one in shares(own))
    cost = sum(one.share for one in distinct.values())
    yield (
        f"members      at most {len(distinct)} distinct ones for {len(configs)} sets of members; what the store has is "
        f"not trained again"
    )
    yield (
        f"training     at most {cost:.2f} full runs (one pass over all data each); {naive:.2f} if every set trained "
        f"its own"
    )
    yield _hours(config, store, cost)


def _hours(config: SweepConfig, store: Store, cost: float) -> str:
    """Hours by what members of the same model took on this corpus; the store's members say so."""
    resources = config.training.resources
    names = {dataset.name for dataset in config.corpus.datasets}
    totals = [
        sum(int(facts["rows"]) for facts in corpus.figures["datasets"].values())
        for _, key in store.finished("corpus")
        if (corpus := store.get("corpus", key)) is not None and set(corpus.figures["datasets"]) == names
    ]
    speeds = [
        member.figures["examples"] / member.figures["seconds"]
        for _, key in store.finished(KIND)
        if (member := store.get(KIND, key)) is not None and _is_alike(member.spec, config)
    ]
    if not totals or not speeds:
        return "hours        not known: the store has no member of this model and batch size on these datasets yet"
    workers = resources.least_workers
    what, each = ("GPU", resources.gpus_per_worker) if resources.gpus_per_worker else ("CPU", resources.cpus_per_worker)
    speed = sorted(speeds)[len(speeds) // 2]
    hours = cost * totals[-1] / speed / 3600
    return (
        f"hours        {hours * workers * each:.2f} {what}-hours: {cost:.2f} x {totals[-1]:,} examples at "
        f"{speed:.1f} examples/s and member, the median of {len(speeds)} in the store"
    )


def _is_alike(spec: dict[str, object], config: SweepConfig) -> bool:
    """Whether a stored member tells how fast these will be."""
    training = spec["training"]
    assert isinstance(training, dict)
    own = config.training.identity()
    return all(training.get(name) == own[name] for name in ("batch_size", "negatives", "precision"))
