"""What a study is going to make: a run per arm and seed, each checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from boom_ray.bags.granularity import granular_bags
from boom_ray.config import ArmConfig, RunConfig, StudyConfig
from boom_ray.config.load import validate
from boom_ray.errors import BoomError, ConfigError
from boom_ray.flows.preparing import check_ground, check_rules
from boom_ray.merging.recipe import MemberRef, resolve
from boom_ray.store import Artifact
from boom_ray.sweeps.points import put_values

Clusters = Mapping[str, Sequence[Sequence[str]]]
"""Name of an arm to the datasets of its clusters; only of arms that have clusters."""


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    Attributes:
        arm: the arm.
        seed: of bags, order and dropout.
        config: the run, with the arm's members as bags.
    """

    arm: ArmConfig
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """Of its model, in MLflow and messages."""
        return f"{self.arm.name}.s{self.seed}"

    @property
    def bags(self) -> tuple[str, ...]:
        """Names of the members' bags, in the order of the weights."""
        return tuple(bag.name for bag in self.config.bags.resolved())

    @property
    def is_merged(self) -> bool:
        """Whether its model is a merge; else it is one of the members."""
        return self.arm.product == "merged" and len(self.bags) > 1


def arm_runs(config: StudyConfig, clusters: Clusters) -> list[ArmRun]:
    """Every arm with every seed; all arms of one seed before the next, so that what is cut short has whole seeds.

    Raises:
        ConfigError: an arm's values do not go together, or one of them is wrong.
    """
    return [
        ArmRun(arm, seed, arm_config(config, arm, seed, clusters.get(arm.name, ())))
        for seed in config.study.seeds
        for arm in config.study.arms
    ]


def arm_config(config: StudyConfig, arm: ArmConfig, seed: int, clusters: Sequence[Sequence[str]] = ()) -> RunConfig:
    """The run of an arm: the study's run with the arm's values in their places and its members as bags.

    A mapping for a section changes the keys that it has and leaves the others; lists and free mappings are replaced,
    and ratios replace bags by name (`boom_ray.sweeps.points.put_values`). No baseline is trained beside it: that is an
    arm of its own.

    Args:
        config: the study.
        arm: one of its arms.
        seed: one of its seeds.
        clusters: of an arm whose members are clusters.

    Raises:
        ConfigError: the values do not go together, or one of them is wrong.
    """
    told = f"Arm {arm.name}"
    tree = config.model_dump(mode="json", include=set(RunConfig.model_fields))
    tree |= {"seed": seed, "baseline": False}
    put_values(tree, arm.set, told)
    if arm.trunk:
        tree["training"]["branches"] = True
    if arm.members != "bags":
        bags = granular_bags(arm.members, config.corpus.datasets, clusters)
        tree["bags"]["members"] = [bag.model_dump(mode="json") for bag in bags]
    return validate(RunConfig, tree, told)


def whole(config: RunConfig) -> RunConfig:
    """The same run with one bag of everything."""
    bags = config.bags.model_copy(update={"ratios": (1.0,), "members": (), "replacement": "none"})
    return config.model_copy(update={"bags": bags})


def check_arms(config: StudyConfig) -> None:
    """What the configuration can tell of every arm, before anything is started or written.

    Raises:
        ConfigError: an arm's values do not go together, or its merge lacks something.
        MergeError: a recipe does not fit the arm's members.
    """
    for arm in config.study.arms:
        run = ArmRun(arm, config.study.seeds[0], arm_config(config, arm, config.study.seeds[0], guess(config, arm)))
        if arm.trunk:
            _check_trunk(run)
        if not run.is_merged:
            continue
        try:
            check_ground(run.config.merge, True, True, config.evaluation)
            resolve(run.config.merge, [MemberRef(name, "", "", 1) for name in run.bags])
        except BoomError as error:
            raise type(error)(f"Arm {arm.name}: {error}") from error


def check_tensors(config: StudyConfig, base: Artifact) -> None:
    """Check the merge rules of all arms against the base's tensors.

    Raises:
        MergeError: a rule about nothing, or rules that do not go together.
    """
    for arm in config.study.arms:
        run = ArmRun(arm, config.study.seeds[0], arm_config(config, arm, config.study.seeds[0], guess(config, arm)))
        if run.is_merged and run.config.merge.rules:
            try:
                check_rules(run.config, base)
            except BoomError as error:
                raise type(error)(f"Arm {arm.name}: {error}") from error


def guess(config: StudyConfig, arm: ArmConfig) -> Sequence[Sequence[str]]:
    """Clusters of the right number, before the true ones are known; empty for other arms."""
    names = [one.name for one in config.corpus.datasets]
    count = min(arm.clusters.count, len(names)) if arm.members == "cluster" else 0
    return [names[number::count] for number in range(count)]


def _check_trunk(run: ArmRun) -> None:
    bags = run.config.bags.resolved()
    ratios = [bag.ratio for bag in bags]
    if len(set(ratios)) < len(ratios) or any(
        bag.complement_of or bag.datasets or bag.replacement != "none" or bag.seed is not None for bag in bags
    ):
        raise ConfigError(
            f"Arm {run.arm.name}: members of a trunk are shares of one plan, so they differ in their ratios only; set "
            f"bags.ratios to different numbers, without replacement."
        )
