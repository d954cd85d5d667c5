"""Bags: which share of every dataset a member is trained on, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.corpus import DatasetConfig
from boom_ray.config.schedule import ScheduleConfig
from boom_ray.config.section import Section

RESERVED = frozenset({"core", "base", "merged", "baseline-100"})
Replacement = Literal["none", "poisson", "multinomial"]


class BagConfig(Section):
    """One bag: a rule, not a copy. Either a ratio or the complement of another bag, which has the same datasets."""

    name: str = Field(description="unique name of the bag", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    ratio: float | None = Field(None, gt=0, le=1, description="share of every dataset, in (0, 1]")
    complement_of: str | None = Field(None, description="name of a bag; this one is everything that it left out")
    seed: int | None = Field(None, description="seed of this bag's draw and order; null: the run's seed")
    draw: int = Field(
        0, ge=0, description="number of the draw; bags of one ratio differ by it, equal draws are one bag"
    )
    replacement: Replacement = Field(
        "none", description="none: each example at most once; poisson or multinomial: bootstrap counts of mean ratio"
    )
    datasets: tuple[str, ...] = Field((), description="names of the datasets that it draws from; empty: all")

    def identity(self) -> dict[str, Any]:
        """As for every section; ``datasets`` only if there are some, so that keys of bags of all datasets stay."""
        found = super().identity()
        return found if self.datasets else {name: value for name, value in found.items() if name != "datasets"}

    def rule(self, seed: int) -> tuple[object, ...]:
        """What tells this bag from others of a run with that seed; its name does not matter."""
        own = (self.ratio, self.complement_of, seed if self.seed is None else self.seed, self.draw, self.replacement)
        return (*own, *sorted(self.datasets))

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.ratio is None) == (self.complement_of is None):
            raise ValueError(f"bag {self.name}: give either ratio or complement_of")
        if self.complement_of is not None and self.replacement != "none":
            raise ValueError(f"bag {self.name}: a complement is drawn without replacement")
        if self.complement_of is not None and self.datasets:
            raise ValueError(f"bag {self.name}: a complement has the datasets of the bag that it completes")
        if len(set(self.datasets)) < len(self.datasets):
            raise ValueError(f"bag {self.name}: a dataset may be named once only (got {', '.join(self.datasets)})")
        return self


class MixtureConfig(Section):
    """How much of each dataset may enter a bag, before ratios are applied."""

    temperature: float = Field(
        1.0, ge=1, description="quota of a dataset of n examples is proportional to n^(1/temperature); 1 keeps sizes"
    )
    caps: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="most examples of a dataset, by its name; examples"
    )
    max_examples: int | None = Field(None, ge=1, description="most examples of all datasets together; examples")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="factor on a dataset's quota, by its name, as far as datasets have that many examples"
    )

    def identity(self) -> dict[str, Any]:
        """As for every section; ``weights`` only if there are some, so that keys of bags without them stay."""
        found = super().identity()
        return found if self.weights else {name: value for name, value in found.items() if name != "weights"}


class BagsConfig(Section):
    """The bags of a run."""

    ratios: tuple[float, ...] = Field((0.8, 1.0), description="one bag per ratio in (0, 1], e.g. [0.8, 1.0]")
    replacement: Replacement = Field("none", description="draw of the bags that ratios make")
    nested: bool = Field(False, description="smaller bags are subsets of larger ones instead of independent draws")
    members: tuple[BagConfig, ...] = Field((), description="bags by name; replaces ratios when not empty")
    core_ratio: float = Field(0.4, gt=0, le=1, description="share of every dataset kept as core for updates")
    mixture: MixtureConfig = Field(MixtureConfig(), description="caps and temperature")
    schedule: ScheduleConfig = Field(
        ScheduleConfig(), description="how examples become steps; by default every step is one dataset, all shuffled"
    )

    def identity(self) -> dict[str, Any]:
        """As for every section; batch-level shuffling is a bare word, as in the keys of earlier versions."""
        found = super().identity()
        return found | ({"schedule": self.schedule.kind} if self.schedule.is_plain else {})

    @model_validator(mode="after")
    def _check(self) -> Self:
        wrong = [ratio for ratio in self.ratios if not 0 < ratio <= 1]
        if wrong:
            raise ValueError(f"ratios must lie in (0, 1]; got {wrong[0]}")
        bags = self.resolved()
        names = [bag.name for bag in bags]
        if not names:
            raise ValueError("give at least one ratio or one member")
        taken = sorted(RESERVED.intersection(names))
        if taken:
            raise ValueError(f"the name {taken[0]} stands for something else; call the bag differently")
        if len(set(names)) < len(names):
            raise ValueError("bag names must be unique")
        rules = {bag.name: bag for bag in bags}
        for bag in bags:
            if bag.complement_of is None:
                continue
            other = rules.get(bag.complement_of)
            if other is None:
                raise ValueError(f"bag {bag.name} is the complement of {bag.complement_of}, which is none of {names}")
            if other.complement_of is not None or other.replacement != "none":
                raise ValueError(f"bag {bag.name}: {other.name} must be a ratio drawn without replacement")
        return self

    def check_datasets(self, datasets: Sequence[DatasetConfig]) -> None:
        """Check the names of datasets that bags and their schedule have.

        Raises:
            ValueError: one is none of the corpus's.
        """
        known = {dataset.name for dataset in datasets}
        for bag in self.members:
            for name in bag.datasets:
                if name not in known:
                    raise ValueError(
                        f"bags.members: bag {bag.name} names {name}, which is none of the datasets {sorted(known)}"
                    )
        self.schedule.check(datasets)

    def shares(self) -> dict[str, float]:
        """Bag name to its share of the datasets that it draws from, in [0, 1]; that of a complement is what is left."""
        bags = self.resolved()
        ratios = {bag.name: bag.ratio or 0.0 for bag in bags}
        return {bag.name: 1 - ratios[bag.complement_of] if bag.complement_of else ratios[bag.name] for bag in bags}

    def resolved(self) -> tuple[BagConfig, ...]:
        """The bags by name: ``members`` as given, else one per ratio, named by its percentage (``bag-80``)."""
        if self.members:
            return self.members
        bags = []
        for index, ratio in enumerate(self.ratios):
            draw = self.ratios[:index].count(ratio)
            name = f"bag-{ratio * 100:g}" + (f"-{draw}" if draw else "")
            bags.append(BagConfig(name=name, ratio=ratio, draw=draw, replacement=self.replacement))
        return tuple(bags)
