"""What a sweep would cost, told without starting it: distinct members, full runs, hours, merges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from boom_ray.config import RunConfig, SweepConfig
from boom_ray.flows.outlook import full_run, member_parts, total
from boom_ray.store import Store
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.reach import reachable
from boom_ray.training.job import KIND


def plan_lines(config: SweepConfig, store: Store) -> list[str]:
    """The plan in words."""
    sweep = config.sweep
    reached = reachable(config)
    lines = [f"search       {sweep.searcher}, seed {sweep.seed}: {sweep.trials} trials, {sweep.batch} at once"]
    sizes = ", ".join("whole" if size is None else f"{size}" for size in sweep.rungs)
    lines.append(f"tasks        {len(config.evaluation.selection)} selection tasks; sizes: {sizes}")
    if reached is None:
        per_trial = member_parts(trial_config(config, {}))
        lines.append(
            f"members      a training parameter is continuous, so every trial trains its own: {len(per_trial)} members "
            f"and {total(per_trial):.2f} full runs as configured, up to {sweep.trials} times that"
        )
    else:
        lines += _members([trial_config(config, point) for point in reached], config, store)
    lines.append(f"merges       {sweep.trials}, straight into live models; 2 into the store at the end")
    return lines


def _members(configs: Sequence[RunConfig], config: SweepConfig, store: Store) -> Iterator[str]:
    every = [part for own in configs for part in member_parts(own)]
    distinct = {part.key: part for part in every}
    naive, cost = total(every), total(distinct.values())
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
    """Hours by what members of the same form and batches took on these datasets; the store's members say so."""
    names = {dataset.name for dataset in config.corpus.datasets}
    corpora = {
        corpus.fingerprint: {name: int(facts["rows"]) for name, facts in corpus.figures["datasets"].items()}
        for _, key in store.finished("corpus")
        if (corpus := store.get("corpus", key)) is not None and set(corpus.figures["datasets"]) == names
    }
    alike = [
        member
        for _, key in store.finished(KIND)
        if (member := store.get(KIND, key)) is not None and member.inputs["corpus"] in corpora
        if _is_alike(member.spec, config)
    ]
    if not alike:
        return "hours        not known: the store has no member of this form and batch size on these datasets yet"
    resources = config.training.resources
    what, each = ("GPU", resources.gpus_per_worker) if resources.gpus_per_worker else ("CPU", resources.cpus_per_worker)
    examples = full_run(config, corpora[alike[-1].inputs["corpus"]])
    speed = median(member.figures["examples"] / member.figures["seconds"] for member in alike)
    hours = cost * examples / speed / 3600 * resources.least_workers * each
    return (
        f"hours        {hours:.2f} {what}-hours: {cost:.2f} x {examples:,} examples at {speed:.1f} examples/s and "
        f"member, the median of {len(alike)} in the store"
    )


def _is_alike(spec: dict[str, Any], config: SweepConfig) -> bool:
    """Whether a stored member tells how fast these will be; which base it has, only its weights would say."""
    training, own = spec["training"], config.training.identity()
    model = config.model.identity()
    return all(training[name] == own[name] for name in ("batch_size", "negatives", "precision")) and all(
        model[name] == value for name, value in spec["model"].items()
    )
