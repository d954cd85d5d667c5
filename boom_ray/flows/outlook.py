"""What members cost before they are trained, from the configuration alone; for the plans of sweeps and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from boom_ray.bags.sampling import BagRule, quotas
from boom_ray.bags.stage import rule_of
from boom_ray.config import BagConfig, RunConfig, ScheduleConfig
from boom_ray.flows.members import is_everything
from boom_ray.hashing import digest


@dataclass(frozen=True)
class Part:
    """A member, or the trunk that members branch off.

    Attributes:
        key: what tells it from others, as far as the configuration says.
        runs: its training in full runs, passes over all data; of a branch, without the trunk.
        is_trunk: it is no member.
    """

    key: str
    runs: float
    is_trunk: bool = False


def member_parts(config: RunConfig) -> list[Part]:
    """A part per bag of a run; a baseline that is trained for comparison is none of them."""
    shares = config.bags.shares()
    return [
        Part(
            _key(config, rule_of(bag, config.bags, config.seed), config.bags.schedule),
            _runs(config, bag, shares[bag.name]),
        )
        for bag in config.bags.resolved()
    ]


def baseline_part(config: RunConfig) -> Part | None:
    """The member that is trained for comparison: everything, batch-level shuffling; None if a bag is that or
    the run wants none.

    See `boom_ray.flows.members.bag_jobs`.
    """
    bags = config.bags
    rules = [rule_of(bag, bags, config.seed) for bag in bags.resolved()]
    if not config.baseline or (bags.schedule.is_plain and any(map(is_everything, rules))):
        return None
    return Part(_key(config, BagRule(1.0, config.seed), ScheduleConfig()), float(config.training.epochs))


def total(parts: Iterable[Part]) -> float:
    """Their training together, in full runs."""
    return sum(part.runs for part in parts)


def full_run(config: RunConfig, sizes: Mapping[str, int]) -> int:
    """Examples of one pass over all data under batch-level shuffling, which leaves incomplete batches out."""
    batch = config.training.batch_size
    share = quotas(sizes, **config.bags.mixture.identity())
    return batch * sum(size // batch for size in share.values())


def _key(config: RunConfig, rule: BagRule, schedule: ScheduleConfig) -> str:
    """By what decides a member, as far as arms and trials can change it."""
    run = [config.bags.mixture.identity(), config.training.identity(), config.seed]
    return digest([repr(rule), schedule.identity(), *run])


def _runs(config: RunConfig, bag: BagConfig, share: float) -> float:
    """Where a member has some of the datasets only, all are taken to be of one size."""
    datasets = config.corpus.datasets
    own = [one for one in datasets if not bag.datasets or one.name in bag.datasets]
    if config.bags.schedule.kind != "two-stage":
        return share * config.training.epochs * len(own) / len(datasets)
    stages = config.bags.schedule.all_stages
    passes = [(one.epochs or config.training.epochs) * one.share * len(one.chosen(own)) for one in stages]
    return share * sum(passes) / len(datasets)
