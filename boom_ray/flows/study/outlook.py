"""What a study would cost, told without starting it: distinct members and full runs, from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from boom_ray.config import ArmConfig, StudyConfig
from boom_ray.flows.outlook import Part, member_parts, total
from boom_ray.flows.study.plan import ArmRun, arm_config, arm_runs, guess
from boom_ray.hashing import digest
from boom_ray.progress import aligned

EACH = {"dataset": "dataset", "task_type": "task type", "cluster": "cluster of datasets"}


def outlook_lines(config: StudyConfig) -> list[str]:
    """The plan in words."""
    study = config.study
    clusters = {arm.name: guess(config, arm) for arm in study.arms if arm.members == "cluster"}
    runs = arm_runs(config, clusters)
    parts = {run.name: arm_parts(run) for run in runs}
    every = [part for own in parts.values() for part in own]
    distinct = {part.key: part for part in every}
    members = [part for part in every if not part.is_trunk]
    kept = [part for part in distinct.values() if not part.is_trunk]
    return [
        f"arms         {len(study.arms)}, each with {len(study.seeds)} seeds; the baseline is {study.baseline}",
        f"members      {len(kept)} distinct ones for the {len(members)} that all arms need; what the store has is not "
        f"trained again",
        f"training     about {total(distinct.values()):.2f} full runs (one pass over all data each); "
        f"{total(every):.2f} if every arm trained its own",
        *_synergy(config),
        f"scores       {len(runs)} models and the base, {_tasks(config)}",
        "",
        *_table(study.seeds[0], runs, parts),
        "",
        "Where a member has some of the datasets only, all are taken to be of one size; clusters are not known yet.",
    ]


def arm_parts(run: ArmRun) -> list[Part]:
    """What has to be trained for an arm with a seed, if nothing else is there."""
    config, bags = run.config, run.config.bags.resolved()
    if not run.arm.trunk:
        return member_parts(config)
    ratios = {bag.name: float(bag.ratio or 0) for bag in bags}
    passes, own = config.training.epochs, config.training.decay_ratio
    decides = [config.bags.mixture.identity(), config.training.identity(), config.seed]
    branches = [Part(digest(["branch", ratio, *decides]), ratio * own * passes) for ratio in ratios.values()]
    trunk = Part(digest(["trunk", max(ratios.values()), *decides]), max(ratios.values()) * (1 - own) * passes, True)
    return [trunk, *branches]


def _synergy(config: StudyConfig) -> Iterator[str]:
    datasets, batch = len(config.corpus.datasets), config.training.batch_size
    for names, arm in _measured(config):
        steps = datasets * datasets * arm.clusters.steps  # D alone and D(D-1)/2 pairs of twice as many
        yield (
            f"synergy      for {', '.join(names)} {datasets * (datasets + 1) // 2} trainings of {arm.clusters.steps} "
            f"steps per dataset, {steps:,} steps of {batch} in all; once for all seeds"
        )


def _measured(config: StudyConfig) -> list[tuple[list[str], ArmConfig]]:
    """Arms with clusters, those together that look at the same losses."""
    found: dict[str, tuple[list[str], ArmConfig]] = {}
    for arm in config.study.arms:
        if arm.members == "cluster":
            own = arm_config(config, arm.model_copy(update={"members": "bags"}), config.seed)
            facts = [own.training.identity(), own.bags.mixture.identity(), arm.clusters.steps, arm.clusters.examples]
            found.setdefault(digest(facts), ([], arm))[0].append(arm.name)
    return list(found.values())


def _tasks(config: StudyConfig) -> str:
    tasks, boards = len(config.evaluation.tasks), len(config.evaluation.benchmarks)
    return f"{tasks} tasks" + (f" and {boards} benchmarks" if boards else "")


def _table(seed: int, runs: Sequence[ArmRun], parts: dict[str, list[Part]]) -> list[str]:
    rows = [["arm", "members", "full runs", "made of"]]
    for run in runs:
        if run.seed == seed:
            own = parts[run.name]
            count = sum(not part.is_trunk for part in own)
            made = ", ".join(run.bags) if run.arm.members == "bags" else f"one per {EACH[run.arm.members]}"
            if run.arm.product == "best_member":
                made = f"the best of {made}"
            rows.append([run.arm.name, str(count), f"{total(own):.2f}", made])
    return aligned(rows, [False, True, True, False])
