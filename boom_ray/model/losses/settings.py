"""A dataset's loss with every default resolved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from boom_ray.config import DatasetConfig, LossConfig
from boom_ray.config.loss import DIRECTIONS, MASKS, Direction, Kind, Mask, Partition

GRADED_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Policy:
    """A dataset's loss, every default resolved (`boom_ray.config.LossConfig` says what the fields mean)."""

    kind: Kind
    temperature: float
    in_batch: bool
    directions: tuple[Direction, ...]
    partition: Partition
    mask: tuple[Mask, ...]
    margin: float | None
    teacher_temperature: float
    contrastive_weight: float

    def identity(self) -> dict[str, Any]:
        """All fields as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def policy_of(dataset: DatasetConfig, temperature: float) -> Policy:
    """The policy of a dataset.

    Args:
        dataset: its configuration.
        temperature: ``training.temperature``, for losses that have none of their own.
    """
    return resolve_policy(dataset.loss, dataset.uses_in_batch, temperature)


def resolve_policy(loss: LossConfig, in_batch: bool, temperature: float) -> Policy:
    """The policy of a loss.

    Args:
        loss: its configuration.
        in_batch: whether the other examples of a step are negatives.
        temperature: ``training.temperature``, for losses that have none of their own.
    """
    usual = GRADED_TEMPERATURE if loss.is_graded else temperature
    return Policy(
        kind=loss.kind,
        temperature=usual if loss.temperature is None else loss.temperature,
        in_batch=in_batch,
        directions=tuple(one for one in DIRECTIONS if one in loss.directions),  # equal losses have equal policies
        partition=loss.partition,
        mask=tuple(one for one in MASKS if one in loss.mask),
        margin=loss.margin,
        teacher_temperature=loss.teacher_temperature,
        contrastive_weight=loss.contrastive_weight,
    )
