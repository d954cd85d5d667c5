"""The whole configuration of `jobs/study.py`: a run, and the ways of training and merging that are compared."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.run import RunConfig
from boom_ray.config.section import KeyedError, Section, runtime

CHANGED = frozenset({"bags", "training", "merge"})
"""The sections that arms may change."""
FIXED = ("training.resources", "training.scores")
"""Keys below them that all arms share, for all members are trained together."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Where = Literal["in_domain", "out_of_domain", "all"]


class ClusterArmConfig(Section):
    """Datasets grouped by how much they help each other: joint against separate training at a small budget."""

    count: int = Field(3, ge=2, description="number of clusters")
    steps: int = Field(30, ge=1, description="steps per dataset of each of the trainings that are compared")
    examples: int = Field(
        64, ge=2, description="examples of each dataset that losses are measured on, kept out of these trainings"
    )
    linkage: Literal["average", "complete", "single"] = Field("average", description="of the hierarchical clustering")


def _keys(values: dict[str, Any]) -> list[str]:
    """Dotted keys, and those one level below where a whole section is given."""
    inner = [f"{key}.{name}" for key, value in values.items() if isinstance(value, dict) for name in value]
    return [*values, *inner]


class ArmConfig(Section):
    """One way to make a model."""

    name: str = Field(pattern=NAME, description="what it is called in the report")
    title: str = Field("", description="a few words for the report; empty: the name")
    set: dict[str, Any] = Field(
        {}, description="keys of the run and their values here, e.g. {bags.ratios: [0.8, 1.0], training.epochs: 2}"
    )
    members: Literal["bags", "dataset", "task_type", "cluster"] = Field(
        "bags", description="one member per bag, or per dataset, task type or cluster of datasets that help each other"
    )
    clusters: ClusterArmConfig = Field(ClusterArmConfig(), description="how members: cluster finds them")
    product: Literal["merged", "best_member"] = Field(
        "merged", description="the merge of the members, or the one that is best on evaluation.selection"
    )
    trunk: bool = Field(
        False, description="members branch off one run at constant learning rate instead of training on their own"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "seed" in self.set:
            raise KeyedError("set.seed", "seeds are those of the study: study.seeds")
        for key, value in self.set.items():
            if key in CHANGED and not isinstance(value, dict):
                raise KeyedError(f"set.{key}", "a section takes keys and their values")
        for key in _keys(self.set):
            if key.split(".")[0] not in CHANGED:
                raise KeyedError(f"set.{key}", "an arm changes keys below bags, training and merge")
            if key.startswith(FIXED):
                raise KeyedError(f"set.{key}", "is the same for all arms; set it for the whole study")
            if self.members != "bags" and key.startswith(("bags.ratios", "bags.members")):
                raise KeyedError(f"set.{key}", f"has no effect with members: {self.members}, whose bags are whole")
        if self.trunk and self.members != "bags":
            raise KeyedError("trunk", "only bags of different ratios share a trunk; set members: bags")
        return self


class ClaimConfig(Section):
    """Something that the report says whether it holds."""

    text: str = Field(min_length=1, description="the claim in words")
    arm: str = Field(description="the arm that it is about")
    versus: tuple[str, ...] = Field(min_length=1, description="the arms that it is compared with; all must bear it out")
    where: tuple[Where, ...] = Field(("in_domain", "out_of_domain"), min_length=1, description="on which tasks")
    says: Literal["better", "no_worse"] = Field(
        "better", description="better beyond noise, or no worse than by the margin"
    )
    margin: float = Field(0.5, ge=0, description="what no_worse allows; points of 100")


class StudySection(Section):
    """What is compared."""

    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="every arm is made once per seed")
    arms: tuple[ArmConfig, ...] = Field(
        min_length=1, description="the arms; members that several need are trained once"
    )
    baseline: str = Field(description="name of the arm that all others are compared with")
    claims: tuple[ClaimConfig, ...] = Field((), description="claims that the report judges")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        for key, values in (("arms", names), ("seeds", list(self.seeds))):
            if len(set(values)) < len(values):
                raise KeyedError(key, f"each only once; got {values}")
        wanted = [("baseline", self.baseline)]
        for number, claim in enumerate(self.claims):
            wanted += [(f"claims.{number}.arm", claim.arm), *((f"claims.{number}.versus", one) for one in claim.versus)]
        for key, name in wanted:
            if name not in names:
                raise KeyedError(key, f"there is no arm {name}; there are {', '.join(names)}")
        return self


class StudyConfig(RunConfig):
    """A BOOM run, and what of it is done in several ways; everything else stays as it says."""

    study: StudySection = Field(description="what is compared")
    dry_run: bool = runtime(False, "say how many members and full runs it would be, and end")

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        for number, arm in enumerate(self.study.arms):
            if arm.product == "best_member" and not self.evaluation.selection:
                raise KeyedError(
                    f"study.arms.{number}.product", "best_member chooses by evaluation.selection, which is empty"
                )
        if not self.evaluation.tasks and not self.evaluation.benchmarks:
            raise ValueError("evaluation names no tasks to compare on: fill in_domain and out_of_domain")
        return self
