"""Close models for `benchmarks/proxies.py`: members, or noisy copies of one model, and their merges.

Ranks are easily kept among models that differ widely. Sweeps compare members of one base and merges of them at
different weights, whose scores lie within a point or two, and so do these.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from boom_ray.config import MergeConfig
from boom_ray.evaluation.scores import ModelRef
from boom_ray.merging.job import MergeInputs, MergeJob
from boom_ray.merging.recipe import MemberRef
from boom_ray.merging.run import MODEL, merge_here
from boom_ray.model.folder import weight_files
from boom_ray.store import Store

LEVELS = (0.02, 0.05, 0.03, 0.06, 0.01, 0.04)
"""Size of the noise of one copy after the other, against the size of each tensor. At 0.05 MiniLM loses nothing on
STS-B, at 0.1 a point there and four on CoNaLa."""
METHODS = ("linear", "multislerp")


def models(
    store: Store, home: Path, members: Sequence[Path], base: Path, levels: Sequence[float], count: int, seed: int
) -> list[ModelRef]:
    """Members, then merges of two or three of them at weights drawn from the simplex, until there are enough.

    What is there already is not made again.

    Args:
        store: where merges go.
        home: where noisy copies go.
        members: model folders of one architecture; none: noisy copies of the base, half as many as models.
        base: what is copied.
        levels: size of the noise of one copy after the other, against the size of each tensor.
        count: how many models.
        seed: of noise, choice and weights.
    """
    names = [f"{folder.parent.name}/{folder.name}" for folder in members]
    if not members:
        members = [
            noisy(base, home, levels[number % len(levels)], number, seed) for number in range(max(2, count // 2))
        ]
        names = [folder.name for folder in members]
    found = [ModelRef.of(name, folder) for name, folder in zip(names, members, strict=True)]
    return [*found, *_merges(store, found, count - len(found), seed)][:count]


def noisy(base: Path, home: Path, level: float, number: int, seed: int) -> Path:
    """A copy whose every tensor has normal noise, in proportion to its root mean square."""
    target = home / f"noise-{level:g}-{number}-{seed}"
    if target.is_dir():
        return target
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(base, draft)
    random = torch.Generator().manual_seed(seed * 1_000_003 + number)
    for path in weight_files(draft):
        tensors = load_file(path)
        for name, tensor in sorted(tensors.items()):
            if tensor.is_floating_point():
                size = tensor.float().square().mean().sqrt()
                noise = torch.randn(tensor.shape, generator=random) * size * level
                tensors[name] = (tensor.float() + noise).to(tensor.dtype)
        path.unlink()  # the copy of a read-only file cannot be written
        save_file(tensors, path, metadata={"format": "pt"})
    draft.rename(target)
    return target


def _merges(store: Store, members: Sequence[ModelRef], count: int, seed: int) -> Iterator[ModelRef]:
    random = np.random.default_rng(seed)
    for number in range(count):
        several = int(random.integers(2, min(3, len(members)) + 1))
        chosen = sorted(random.choice(len(members), several, replace=False).tolist())
        weights = np.round(random.dirichlet(np.ones(several)), 3)
        method = METHODS[number % len(METHODS)]
        parts = [MemberRef(members[one].name, members[one].path, members[one].fingerprint, 1) for one in chosen]
        plain = not (Path(parts[0].path) / "modules.json").exists()
        inputs = MergeInputs(parts, pooling="mean" if plain else None)  # what sentence-transformers takes as well
        merged = merge_here(MergeJob(store, inputs, MergeConfig(method=method, weights=tuple(weights.tolist()))))
        told = "+".join(f"{weight:g}*{one}" for weight, one in zip(weights, chosen, strict=True))
        yield ModelRef.of(f"{method} {told}", merged.local() / MODEL)
