"""From trained weights to the member's folder: loaded into a fresh base, adapters folded, checked, saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from boom_ray.errors import TrainingError
from boom_ray.model.encoder import load_encoder, save_model
from boom_ray.model.tokenizer import load_tokenizer
from boom_ray.store import Store
from boom_ray.training.job import MemberJob


def write_folder(store: Store, job: MemberJob, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write a sentence-transformers folder of trained weights.

    The base is loaded again, in float32: what was not trained has been rounded to the type that was computed with, and
    adapters must be folded into the base's own weights.

    Args:
        store: where the base is.
        job: the member.
        weights: name to float32 weights of everything that was trained, on the CPU.
        folder: where to.

    Raises:
        TrainingError: a weight is not finite; nothing is written then.
    """
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(
                f"Member {job.name}: the trained tensor {name} holds NaN or infinity, so it is not saved. Lower "
                f"training.learning_rate or use training.precision=float32."
            )
    base = store.resolve(job.base_place)
    model = job.model.model_copy(update={"dense": ()})  # the base's artifact has them already
    encoder = load_encoder(base, model, job.training.dropout, job.seed)
    trained = encoder.trainable()
    if set(trained) != set(weights):
        odd = sorted(set(trained) ^ set(weights))
        raise TrainingError(f"Member {job.name}: {odd[0]} was trained in one place and is missing in another.")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    save_model(encoder, load_tokenizer(base, job.model), folder, job.prompts, job.max_tokens)
