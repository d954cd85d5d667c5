"""What a sweep would cost, told without starting it: distinct members, full runs, hours, merges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from boom_ray.config import MergeConfig, RunConfig, SweepConfig
from boom_ray.errors import ConfigError
from boom_ray.flows.outlook import Part, baseline_part, full_run, member_parts, total
from boom_ray.store import Store
from boom_ray.sweeps.points import trial_config
from boom_ray.sweeps.reach import MOST, continuous, extremes, points, reachable
from boom_ray.sweeps.trials import Point
from boom_ray.training.job import KIND


@dataclass(frozen=True)
class Bill:
    """What training costs at most.

    Attributes:
        members: how many are trained.
        runs: their training, in full runs.
    """

    members: int
    runs: float


def plan_lines(config: SweepConfig, store: Store) -> list[str]:
    """The plan in words; every figure of what is to be trained is what it will be at most."""
    sweep, trials = config.sweep, _trials(config)
    lines = [f"search       {sweep.searcher}, seed {sweep.seed}: {trials} trials, {sweep.batch} at once"]
    if trials < sweep.trials:
        lines[0] += f"; the space has {trials} points, sweep.trials={sweep.trials}"
    sizes = ", ".join("whole" if size is None else f"{size}" for size in sweep.rungs)
    lines.append(f"tasks        {len(config.evaluation.selection)} selection tasks; sizes: {sizes}")
    reached = reachable(config)
    if reached is None:
        lines += _unlisted(config, store, trials)
    else:
        lines += _listed(config, reached, store, trials)
    lines.append(f"merges       {trials}, straight into live models; 2 into the store at the end")
    return lines


def _trials(config: SweepConfig) -> int:
    """How many there are, unless time or patience end them: not more than points, where those are listed."""
    listed = points(config)
    return config.sweep.trials if listed is None else sum(1 for _ in islice(listed, config.sweep.trials))


def _listed(config: SweepConfig, reached: Sequence[Point], store: Store, trials: int) -> Iterator[str]:
    """Where all sets of members are known: each member once."""
    configs = _runs_of(config, reached)
    every = [part for own in configs for part in member_parts(own)]
    distinct = {part.key: part for part in every}
    most, extra = _most(configs, trials), _baseline(configs, distinct)
    members = min(len(distinct), most.members) + extra.members
    cost, naive = (min(total(parts), most.runs) + extra.runs for parts in (distinct.values(), every))
    yield (
        f"members      at most {members} distinct ones for {len(configs)} sets of members"
        f"{', the baseline included' if extra.members else ''}; what the store has is not trained again"
    )
    yield (
        f"training     at most {cost:.2f} full runs (one pass over all data each); {naive:.2f} if every set trained "
        f"its own"
    )
    yield from _left_out(len(reached) - len(configs))
    yield _hours(config, store, cost)


def _unlisted(config: SweepConfig, store: Store, trials: int) -> Iterator[str]:
    """Where they are not: as many of the dearest set as there are trials."""
    keys, found = continuous(config), extremes(config)
    are = "is" if len(keys) == 1 else "are"
    reason = f"{' and '.join(keys)} {are} continuous" if keys else f"there are more than {MOST:,} sets of members"
    told = f"members      {reason}, so every trial may train its own"
    if found is None:
        yield f"{told}; what {trials} of them cost is not known: there are more than {MOST:,} to compare"
        return
    configs = _runs_of(config, found)
    most, extra = _most(configs, trials), _baseline(configs, {})
    note = ", the baseline included" if extra.members else ""
    yield f"{told}: at most {most.members + extra.members}, {most.members // trials} per trial{note}"
    yield (
        f"training     at most {most.runs + extra.runs:.2f} full runs (one pass over all data each), "
        f"{most.runs / trials:.2f} per trial"
    )
    yield from _left_out(len(found) - len(configs))
    yield _hours(config, store, most.runs + extra.runs)


def _runs_of(config: SweepConfig, reached: Sequence[Point]) -> list[RunConfig]:
    """The runs of sets of members, without those that are no run: what does not go together fails in its trial.

    The merge is the usual one: that of the run may be for other members, and the points say nothing of it.
    """
    plain, found = config.model_copy(update={"merge": MergeConfig()}), []
    for point in reached:
        with suppress(ConfigError):
            found.append(trial_config(plain, point))
    return found


def _left_out(count: int) -> Iterator[str]:
    if count:
        yield f"left out     sets of members whose values do not go together: {count}; their trials fail"


def _most(configs: Sequence[RunConfig], trials: int) -> Bill:
    """A bound for trials that share nothing."""
    parts = [member_parts(one) for one in configs]
    return Bill(trials * max(map(len, parts), default=0), trials * max(map(total, parts), default=0.0))


def _baseline(configs: Sequence[RunConfig], known: Mapping[str, Part]) -> Bill:
    """The dearest baseline that is none of the known members; one is trained, with the chosen settings."""
    found = [part for part in map(baseline_part, configs) if part is not None and part.key not in known]
    return Bill(min(len(found), 1), max((part.runs for part in found), default=0.0))


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
