"""Members that branch off one run: how long each is, where it leaves the trunk, and what all of them cost.

The member of ratio r is the run over the first r of the steps with warm-up, one rate, and a fall of the rate at its end
(warm-up, stable, decay; Hu et al. 2024, arXiv 2404.06395). Until its fall begins it is the same run as every longer
one, so these steps, the trunk, are trained once. A branch goes on from the trunk's weights and moments with the steps
that the trunk itself would take, so it has seen no example that is not in the first r of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from boom_ray.artifacts.plan import Plan
from boom_ray.config import TrainingConfig
from boom_ray.errors import ConfigError
from boom_ray.training.average import snapshot_updates
from boom_ray.training.job import MemberJob, TrunkJob
from boom_ray.training.optimizer import fall, warmup


@dataclass(frozen=True)
class Branch:
    """A member as a part of the trunk and steps of its own.

    Attributes:
        steps: all of its steps, from the plan's first.
        fork: so many of them are the trunk's.
    """

    steps: int
    fork: int


def steps_of(plan: Plan, config: TrainingConfig) -> int:
    """Steps of a plan that branches are shares of.

    Raises:
        ConfigError: the plan has stages, in each of which the rate rises and falls.
    """
    if len(plan.stages) > 1:
        raise ConfigError(
            f"The plan has {len(plan.stages)} stages, each with a rate of its own, so there is no trunk for branches. "
            f"Set training.branches=false or choose another bags.schedule."
        )
    return min(len(plan), config.max_steps or len(plan))


def branch(ratio: float, steps: int, config: TrainingConfig) -> Branch:
    """Length and fork of a member, both whole updates; only the plan's last update may be shorter.

    The fork is where the rate begins to fall, or before the first snapshot of ``average_last`` if that is earlier.

    Args:
        ratio: share of the plan's steps, in (0, 1]; rounded to updates.
        steps: steps of the plan.
        config: how it is trained, with ``decay: wsd`` and ``warmup_updates``.

    Raises:
        ConfigError: the warm-up takes all of its updates.
    """
    each = config.accumulation
    total = max(1, math.floor(ratio * -(-steps // each) + 0.5))
    if warmup(total, config) >= total:
        raise ConfigError(
            f"training.warmup_updates={warmup(total, config)} leaves nothing of the {total} updates of a branch of "
            f"ratio {ratio:g}. Lower it or raise the ratio."
        )
    fork = min([fall(total, config), *(update - 1 for update in snapshot_updates(total, config.average_last))])
    return Branch(min(steps, total * each), fork * each)


def trained_steps(branches: Iterable[Branch]) -> int:
    """Steps that trunk and branches take together: the longest trunk, and what each branch has of its own."""
    known = list(branches)
    return max(one.fork for one in known) + sum(one.steps - one.fork for one in known)


def branch_jobs(job: MemberJob, ratios: Mapping[str, float], steps: int) -> list[MemberJob]:
    """The members that branch off one trunk; `boom_ray.training.members.train_members` also trains their trunks.

    A member's key is that of the same run without a trunk, so that one which was trained so is taken, and the other way
    round. The trunk is trained from fork to fork, and what it is at each is kept as an artifact of its own.

    Args:
        job: trained on all of the plan; its name and trunk do not matter.
        ratios: name of each member to its share of the plan's steps.
        steps: of the plan, see `steps_of`.

    Raises:
        ConfigError: its training is not one of branches, or a branch is too short.
    """
    if not job.training.branches:
        raise ConfigError("Members can branch off one run only with training.branches=true.")
    training = job.training.model_copy(update={"branches": False})
    found = {name: branch(ratio, steps, training) for name, ratio in ratios.items()}
    trunks: dict[int, TrunkJob] = {}
    last = None
    for fork in sorted({one.fork for one in found.values() if one.fork > 0}):
        last = trunks[fork] = TrunkJob.of(job, fork, last)
    jobs = []
    for name, one in found.items():
        changes = {} if one.steps == steps else {"max_steps": one.steps}
        own = training.model_copy(update=changes)
        jobs.append(replace(job, name=name, training=own, trunk=trunks.get(one.fork)))
    return jobs
