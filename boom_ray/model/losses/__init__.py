"""Losses over the embeddings of a step; plain functions of tensors, chosen by a dataset's policy."""

from boom_ray.model.losses.policy import (
    Facts,
    Matryoshka,
    Policy,
    loss_and_gradient,
    policy_of,
    resolve_policy,
    step_loss,
)

__all__ = ["Facts", "Matryoshka", "Policy", "loss_and_gradient", "policy_of", "resolve_policy", "step_loss"]
