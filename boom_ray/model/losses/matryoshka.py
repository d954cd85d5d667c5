"""Losses of the first coordinates of an embedding, so that it can be cut."""

from __future__ import annotations

from dataclasses import dataclass

from boom_ray.config import MatryoshkaConfig
from boom_ray.errors import ModelError


@dataclass(frozen=True)
class Matryoshka:
    """loss = Σ_d w_d · loss(first d coordinates, of length 1 again) (Kusupati et al. 2022, arXiv 2205.13147, eq. 1).

    Attributes:
        dimensions: how many coordinates, descending.
        weights: w of each of them.
    """

    dimensions: tuple[int, ...]
    weights: tuple[float, ...]

    @staticmethod
    def of(config: MatryoshkaConfig | None) -> Matryoshka | None:
        """The configured one, if there is any."""
        if config is None:
            return None
        return Matryoshka(config.dimensions, config.weights or (1.0,) * len(config.dimensions))

    def __post_init__(self) -> None:
        """Check that they belong together.

        Raises:
            ValueError: numbers of dimensions and weights differ, or the dimensions do not descend.
        """
        if not self.dimensions or len(self.dimensions) != len(self.weights):
            raise ValueError(f"give one weight per dimension: {len(self.dimensions)} and {len(self.weights)}")
        if list(self.dimensions) != sorted(set(self.dimensions), reverse=True) or self.dimensions[-1] < 1:
            raise ValueError(f"dimensions must descend and be positive: {list(self.dimensions)}")

    def sizes(self, dimension: int) -> tuple[tuple[int, float], ...]:
        """(coordinates, weight) of every loss.

        Raises:
            ModelError: the embedding has fewer coordinates.
        """
        if self.dimensions[0] > dimension:
            raise ModelError(
                f"matryoshka.dimensions has {self.dimensions[0]}; the model's embeddings are {dimension} wide."
            )
        return tuple(zip(self.dimensions, self.weights, strict=True))
