"""Parameters of every merge method: names, defaults, bounds and meanings, checked when the configuration is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from boom_ray.config.section import Section

Granularity = Literal["tensor", "row"]


class Parameters(Section):
    """Parameters of methods that have none."""


class Scaled(Parameters):
    """Methods whose merged difference has a length of its own."""

    scale: float = Field(1.0, description="lambda, the length of the merged difference from the base")


class Spherical(Parameters):
    """Methods on the sphere that iterate."""

    iterations: int = Field(100, ge=1, description="most steps towards the mean")
    tolerance: float = Field(1e-12, gt=0, description="length of a step below which the mean is found; radians")


class Granular(Parameters):
    """Methods that can treat every row (output neuron) of a matrix by itself."""

    granularity: Granularity = Field("tensor", description="one decision per tensor, or one per row of a matrix")


class Sparse(Scaled):
    """Methods that keep a share of every difference."""

    density: float = Field(0.5, gt=0, le=1, description="share of the elements of a difference that is kept")


class Ties(Sparse):
    """Trim, elect sign, average what agrees."""

    density: float = Field(0.2, gt=0, le=1, description="share of the elements of a difference that is kept")
    scope: Literal["tensor", "model"] = Field(
        "tensor", description="trim every tensor to the density, or the whole model"
    )
    normalize: bool = Field(True, description="divide by the weights of the members that agree")


class Random(Sparse):
    """Methods that drop elements at random."""

    rescale: bool = Field(True, description="divide what is kept by its probability, so that the expectation stays")
    seed: int = Field(0, description="seed of the masks")


class RandomTies(Random):
    """Random dropping, then sign election."""

    normalize: bool = Field(True, description="divide by the weights of the members that agree")


class Della(Random):
    """Dropping that depends on the rank of the magnitude in its row."""

    epsilon: float = Field(0.15, ge=0, lt=0.5, description="half the range of the keep probability around the density")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.density < 1 and not (self.density - self.epsilon > 0 and self.density + self.epsilon < 1):
            raise ValueError(
                f"density {self.density} plus and minus epsilon {self.epsilon} must lie between 0 and 1; lower epsilon"
            )
        return self


class DellaTies(Della):
    """The same with sign election."""

    normalize: bool = Field(True, description="divide by the weights of the members that agree")


class Breadcrumbs(Sparse):
    """Both tails of the magnitudes are cut."""

    density: float = Field(0.9, gt=0, le=1, description="share of the elements of a difference that is kept")
    gamma: float = Field(0.01, ge=0, lt=1, description="share of the largest elements that is dropped first")


class BreadcrumbsTies(Breadcrumbs):
    """The same with sign election."""

    normalize: bool = Field(True, description="divide by the weights of the members that agree")


class Sce(Scaled):
    """Select, calculate, erase."""

    select: float = Field(1.0, gt=0, le=1, description="share of the elements with the largest variance over members")


class RegMean(Parameters):
    """Least squares per linear layer."""

    shrink: float = Field(0.9, ge=0, le=1, description="factor on what lies off the diagonal of the inputs' products")


PARAMETERS: Mapping[str, type[Parameters]] = {
    "linear": Parameters,
    "greedy_soup": Parameters,
    "task_arithmetic": Scaled,
    "slerp": Parameters,
    "nuslerp": Granular,
    "multislerp": Parameters,
    "riemannian_step": Parameters,
    "karcher": Spherical,
    "model_stock": Granular,
    "ties": Ties,
    "dare_linear": Random,
    "dare_ties": RandomTies,
    "della_linear": Della,
    "della_ties": DellaTies,
    "breadcrumbs": Breadcrumbs,
    "breadcrumbs_ties": BreadcrumbsTies,
    "sce": Sce,
    "fisher": Parameters,
    "regmean": RegMean,
    "self_positioning": Scaled,
}
"""Every merge method and the section that checks its parameters."""
