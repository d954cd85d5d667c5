"""The whole configuration of `jobs/sweep.py`: a run, and what of it is searched."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from boom_ray.config.run import RunConfig
from boom_ray.config.section import KeyedError, Section, runtime

SEARCHABLE = ("seed", "bags", "training", "merge")
WEIGHTS = "merge.weights"
RATIOS = "bags.ratios"
REST = "rest"
LEAST_SIZE = 2  # as TaskConfig.size has it
LEARNED = "self_positioning"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_. -]*$"
Ratio = Annotated[float, Field(gt=0, le=1)]


class SimplexConfig(Section):
    """Merge weights, one per member, uniform on the simplex (Dirichlet(1)) before a searcher has learnt anything."""

    layers: tuple[str, ...] = Field(
        (),
        description="groups with weights of their own: layers (7 or 0-5) or tensor names with wildcards; the last part "
        "is the rest",
    )
    steps: int | None = Field(
        None, ge=1, le=1000, description="searcher grid: weights are multiples of 1/steps, e.g. 10"
    )

    @property
    def parts(self) -> tuple[str, ...]:
        """The groups and ``rest``."""
        return (*self.layers, REST)

    @field_validator("layers", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value]

    @field_validator("layers")
    @classmethod
    def _groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((one for one in value if value.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is there twice")
        if REST in value:
            raise ValueError(f"{REST} is what no group has; leave it out")
        return value


class RatiosConfig(Section):
    """Free numbers of bags with ratios from a grid."""

    grid: tuple[Ratio, ...] = Field(min_length=1, description="ratios a bag may have, e.g. [0.2, 0.4, 0.6, 0.8, 1.0]")
    members: tuple[int, int] = Field((2, 4), description="fewest and most bags")

    @model_validator(mode="after")
    def _check(self) -> Self:
        least, most = self.members
        if not 1 <= least <= most:
            raise ValueError(f"members must be [fewest, most] with 1 <= fewest <= most; got {list(self.members)}")
        return self

    @field_validator("grid")
    @classmethod
    def _grid(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"ratios must differ; got {list(value)}")
        return value


class ParameterConfig(Section):
    """How one key of the run is searched: exactly one of the kinds, and when it applies."""

    choice: tuple[Any, ...] | dict[str, Any] | None = Field(
        None, description="one of these values; a mapping gives each a name for reports: {80-100: {ratios: [0.8, 1]}}"
    )
    uniform: tuple[float, float] | None = Field(None, description="a number between these, all alike")
    log_uniform: tuple[float, float] | None = Field(None, description="a number between these, all magnitudes alike")
    integer: tuple[int, int] | None = Field(None, description="an integer from the first to the second")
    simplex: SimplexConfig | None = Field(None, description="merge.weights only; {} = one weight per member")
    ratios: RatiosConfig | None = Field(None, description="bags.ratios only: how many bags, and the ratio of each")
    when: dict[str, tuple[Any, ...]] = Field(
        {}, description="applies only where other parameters have one of these values, e.g. {merge.method: [ties]}"
    )

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: one if isinstance(one, list | tuple) else [one] for key, one in value.items()}

    @property
    def options(self) -> tuple[Any, ...]:
        """What a choice is between, as points say it: the names, else the values; of other kinds nothing."""
        return tuple(self.choice or ())

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of a range of numbers; asked of no other kind."""
        found = self.integer or self.log_uniform or self.uniform
        assert found is not None
        return found

    def value(self, option: Any) -> Any:
        """The value of the run that an option of a choice stands for."""
        return self.choice[option] if isinstance(self.choice, dict) else option

    @property
    def kind(self) -> str:
        """``choice``, ``uniform``, ``log_uniform``, ``integer``, ``simplex`` or ``ratios``."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; got {' and '.join(given) or 'none'}")
        if self.choice is not None and not self.choice:
            raise KeyedError("choice", "there is nothing to choose from")
        for number, option in enumerate(self.options):
            if any(label(option) == label(other) or option == other for other in self.options[:number]):
                raise KeyedError("choice", f"{label(option)} is there twice")
        for name in ("uniform", "log_uniform", "integer"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] >= bounds[1]:
                raise KeyedError(name, f"must be [lowest, highest] with lowest < highest; got {list(bounds)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise KeyedError("log_uniform", f"must lie above 0; got {list(self.log_uniform)}")
        return self


KINDS = ("choice", "uniform", "log_uniform", "integer", "simplex", "ratios")


class ObjectiveConfig(Section):
    """One figure that the search makes as large as it can, from scores on the tasks of evaluation.selection."""

    name: str = Field("score", pattern=NAME, description="what it is called in reports")
    metric: Literal["mean", "mean_by_type", "worst"] = Field(
        "mean", description="mean over tasks, mean over the means of task types, or the lowest score"
    )
    tasks: tuple[str, ...] = Field((), description="names of selection tasks; empty: all")


class SearchConfig(Section):
    """What is searched, how, and until when."""

    space: dict[str, ParameterConfig] = Field(
        min_length=1, description="keys of the run (seed, bags.*, training.*, merge.*) and how each is searched"
    )
    searcher: Literal["tpe", "random", "grid", "gp", "cmaes", "nsga2", "learned"] = Field(
        "tpe",
        description="tpe, nsga2, gp, cmaes: learn from trials; grid: every combination; learned: the same, weights by "
        "gradient descent (self_positioning)",
    )
    seed: int = Field(0, ge=0, description="seed of the searcher")
    trials: int = runtime(64, "trials in all, earlier ones of the same search included", ge=1)
    hours: float | None = runtime(None, "no new trials after this time; hours", gt=0)
    patience: int | None = runtime(None, "end after so many trials without a better one", ge=1)
    retry_failed: bool = runtime(
        False, "try trials again that failed in an earlier run of this search; later ones may then be others"
    )
    batch: int = Field(4, ge=1, description="trials suggested at once; take at least the number of evaluation actors")
    rungs: tuple[int | None, ...] = Field(
        (None,),
        min_length=1,
        description="sizes of the selection tasks (queries or rows; null: whole), at which ASHA drops trials; one only "
        "if there are several objectives",
    )
    precision: Literal["float32", "bfloat16"] | None = Field(
        None, description="type of the trials' forward pass; null: evaluation.precision, which reports are always in"
    )
    reduction: int = Field(3, ge=2, description="ASHA's eta: one of so many trials reaches the next rung")
    objectives: tuple[ObjectiveConfig, ...] = Field(
        (ObjectiveConfig(),), min_length=1, description="what is searched for; several: their Pareto front"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise KeyedError("objectives", f"names must be unique; got {names}")
        self._check_rungs()
        if len(self.objectives) > 1 and self.searcher in {"gp", "cmaes"}:
            raise KeyedError("searcher", f"{self.searcher} takes one objective; use tpe, nsga2, random or grid")
        for key, parameter in self.space.items():
            self._check_parameter(key, parameter)
            self._check_listed(key, parameter)
        self.ordered()
        return self

    def _check_rungs(self) -> None:
        sizes = [float("inf") if size is None else size for size in self.rungs]
        if min(sizes) < LEAST_SIZE:
            raise KeyedError(
                "rungs", f"sizes must be {LEAST_SIZE} or more, for a score compares; got {list(self.rungs)}"
            )
        if sizes != sorted(set(sizes)):
            raise KeyedError("rungs", f"must grow, and null (whole tasks) comes last; got {list(self.rungs)}")
        if len(self.rungs) > 1 and len(self.objectives) > 1:
            raise KeyedError(
                "rungs",
                f"ASHA would drop trials by the first of sweep.objectives ({self.objectives[0].name}) alone, and with "
                f"them the Pareto front's other end; give one size, e.g. [null], or one objective; got "
                f"{list(self.rungs)}",
            )

    @property
    def is_listed(self) -> bool:
        """Whether the searcher goes through a list of points instead of suggesting some."""
        return self.searcher in {"grid", "learned"}

    def ordered(self) -> tuple[str, ...]:
        """Keys in the order in which values are chosen: after what they depend on, members before merge, weights last.

        Raises:
            KeyedError: conditions go round in a circle.
        """
        left = sorted(self.space, key=lambda key: (key == WEIGHTS, not decides_members(key)))
        found: list[str] = []
        while left:
            ready = next((key for key in left if all(other in found for other in self.space[key].when)), None)
            if ready is None:
                raise KeyedError(f"space.{left[0]}.when", f"{' and '.join(left)} wait for one another; remove one when")
            found.append(ready)
            left.remove(ready)
        return tuple(found)

    def _check_parameter(self, key: str, parameter: ParameterConfig) -> None:
        place = f"space.{key}"
        if key.split(".")[0] not in SEARCHABLE:
            raise KeyedError(place, f"only keys below {', '.join(SEARCHABLE)} can be searched")
        if parameter.simplex is not None and key != WEIGHTS:
            raise KeyedError(place, f"simplex is for {WEIGHTS}")
        if parameter.ratios is not None and key != RATIOS:
            raise KeyedError(place, f"ratios is for {RATIOS}")
        for other, wanted in parameter.when.items():
            self._check_condition(f"{place}.when", key, other, wanted)

    def _check_condition(self, place: str, key: str, other: str, wanted: tuple[Any, ...]) -> None:
        if other not in self.space or other == key:
            raise KeyedError(place, f"{other} is not searched; known: {', '.join(self.space)}")
        options = self.space[other].options
        if not options:
            raise KeyedError(place, f"{other} is no choice; conditions are on choices, so give it one")
        if not wanted:
            raise KeyedError(place, f"{other} has no value here; give some of {', '.join(map(label, options))}")
        for one in wanted:
            if label(one) not in map(label, options):
                raise KeyedError(
                    place, f"{label(one)} is no option of {other}; known: {', '.join(map(label, options))}"
                )

    def _check_listed(self, key: str, parameter: ParameterConfig) -> None:
        """What a searcher that goes through all combinations cannot have."""
        place = f"space.{key}"
        if self.is_listed and parameter.kind in {"uniform", "log_uniform"}:
            raise KeyedError(place, f"searcher {self.searcher} takes every combination; give a choice of values")
        if self.searcher == "learned" and key in {"merge", "merge.method", WEIGHTS}:
            raise KeyedError(place, f"searcher learned finds the weights itself, by merge.method={LEARNED}; remove it")
        if self.is_listed and parameter.simplex is not None and parameter.simplex.steps is None:
            raise KeyedError(f"{place}.simplex", "searcher grid needs steps: weights are multiples of 1/steps")


def label(option: Any) -> str:
    """An option in words: a text as it is, all else as compact JSON."""
    if isinstance(option, str):
        return option
    return json.dumps(option, separators=(",", ":"), ensure_ascii=False, default=str)


def decides_members(key: str) -> bool:
    """Whether a key of the space decides which members are trained; the others only decide how they are merged."""
    return key.partition(".")[0] != "merge"


class SweepConfig(RunConfig):
    """A BOOM run of which some keys are searched; everything else stays as it says."""

    sweep: SearchConfig = Field(description="what is searched, how, and until when")
    resume: bool = runtime(False, "there must be an earlier part of this search to go on with")
    dry_run: bool = runtime(False, "say how many bags, full runs and merges it would be, and end")

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        tasks = [task.name for task in self.evaluation.selection]
        if not tasks:
            raise ValueError(
                "a sweep chooses by the tasks of evaluation.selection, which are neither trained on nor reported: give "
                "some"
            )
        for number, objective in enumerate(self.sweep.objectives):
            unknown = [name for name in objective.tasks if name not in tasks]
            if unknown:
                raise KeyedError(
                    f"sweep.objectives.{number}.tasks", f"{unknown[0]} is no task of evaluation.selection: {tasks}"
                )
        if any(size is not None for size in self.sweep.rungs):
            hub = [task.name for task in self.evaluation.selection if task.path is None]
            if hub:
                raise KeyedError(
                    "sweep.rungs",
                    f"{hub[0]} is mteb's own task, which has no sizes; save it as a folder, or rungs: [null]",
                )
        return self
