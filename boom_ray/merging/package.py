"""Everything of a model folder but its weights: which files belong to the product, and copying them.

A merged model without its pooling, prompts and tokenizer silently gives other vectors (PEERS.md 2d), so all files of
the first member are taken over unless they hold weights or are about its own training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from boom_ray.errors import MergeError
from boom_ray.hashing import digest, file_digest
from boom_ray.merging.checkpoint import Checkpoint
from boom_ray.model.folder import INDEX, read_json

WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".pkl"}
)
OWN = frozenset({"README.md", "artifact.json", "trainer_state.json", INDEX})
"""Files about the first member itself; the merged model gets its own."""
EXPORTS = ("onnx", "openvino", "checkpoint-*", "runs", "eval", ".*")
"""Folders with exports of the first member's weights, or with traces of its training."""


@dataclass(frozen=True)
class Package:
    """Files of a model folder beside its weights, as relative paths: those to copy and those left out."""

    folder: Path
    copied: tuple[str, ...]
    left_out: tuple[str, ...]

    def fingerprint(self) -> str:
        """Hash of the names and contents of the files to copy."""
        return digest({name: file_digest(self.folder / name) for name in self.copied})

    def copy(self, target: Path) -> None:
        """Copy them below ``target``."""
        for name in self.copied:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, target / name)


def describe(checkpoint: Checkpoint) -> Package:
    """Sort the files of a member's folder.

    Raises:
        MergeError: weights in a place that belongs to no module, which a merge would miss.
    """
    weights = {info.path for info in checkpoint.tensors.values()}
    homes = {path.parent for path in weights}
    copied, left_out = [], []
    for path in _files(checkpoint.folder):
        name = path.relative_to(checkpoint.folder).as_posix()
        exported = any(PurePosixPath(part).match(pattern) for part in name.split("/") for pattern in EXPORTS)
        if path in weights:
            continue
        if exported or path.name in OWN or path.suffix in WEIGHTS:
            if path.suffix == ".safetensors" and not exported and path.parent not in homes:
                raise MergeError(
                    f"{path} of {checkpoint.label} holds weights but belongs to no module of modules.json; such models "
                    f"(e.g. with a router) cannot be merged yet."
                )
            left_out.append(name)
        else:
            copied.append(name)
    return Package(checkpoint.folder, tuple(copied), tuple(left_out))


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def write_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Write the type of the weights into a transformer's ``config.json``.

    transformers loads a model in the type named there; a wrong one would silently round the merged weights.
    """
    path = folder / "config.json"
    config = read_json(path)
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
