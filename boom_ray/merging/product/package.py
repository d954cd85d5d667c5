"""Everything of a model folder but its weights: which files belong to the product, and copying them.

A merged model without its pooling, prompts and tokenizer silently gives other vectors (PEERS.md 2d), so all files of
the first member are taken over unless they hold weights or are about its own training. A member that is a plain
transformers folder has none of pooling, prompts and length; they are told and written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from boom_ray.errors import MergeError
from boom_ray.hashing import digest, file_digest
from boom_ray.merging.reading.checkpoint import Checkpoint
from boom_ray.model.folder import ADAPTER_CONFIG, INDEX, read_json, write_modules
from boom_ray.model.pooling import MODES

WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".pkl"}
)
OWN = frozenset({"README.md", "artifact.json", "trainer_state.json", INDEX, ADAPTER_CONFIG})
"""Files about the first member itself; the merged model gets its own."""
EXPORTS = ("onnx", "openvino", "checkpoint-*", "runs", "eval", ".*")
"""Folders with exports of the first member's weights, or with traces of its training."""
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""What configs of transformers call the width of the hidden states."""
ENDLESS = 1_000_000
"""Tokenizers that have no limit say a number above this."""


@dataclass(frozen=True)
class Package:
    """Files of a model folder beside its weights.

    Attributes:
        folder: the model folder; for an adapter that of its base, unless the adapter's has modules of its own.
        copied: files to copy, as relative paths.
        left_out: files left out.
        transformer: folder of the transformer module, relative.
        is_plain: whether it is a transformers folder without pooling, prompts and length.
        sources: relative path to file.
    """

    folder: Path
    copied: tuple[str, ...]
    left_out: tuple[str, ...]
    transformer: str = ""
    is_plain: bool = False
    sources: Mapping[str, Path] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of the names and contents of the files to copy."""
        return digest({name: file_digest(self.sources[name]) for name in self.copied})

    def copy(self, target: Path) -> None:
        """Copy them below ``target``."""
        for name in self.copied:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.sources[name], target / name)

    def check_pooling(self, pooling: str | None) -> None:
        """Check that all is known that makes a complete model.

        Raises:
            MergeError: a plain transformers folder, and no pooling or an unknown one was told.
        """
        if self.is_plain and pooling not in MODES:
            told = " and does not say how" if pooling is None else f", and {pooling} is no known way in which"
            raise MergeError(
                f"{self.folder} is a plain transformers folder (it has no modules.json){told} token states become one "
                f"vector; set model.pooling to {', '.join(MODES[:-1])} or {MODES[-1]}, as in training."
            )


def describe(checkpoint: Checkpoint) -> Package:
    """Sort the files of a member's folder, and for an adapter of its base's.

    Raises:
        MergeError: weights in a place that belongs to no module, which a merge would miss.
    """
    weights = checkpoint.weight_paths()
    homes = {path.parent for path in weights}
    sources: dict[str, Path] = {}
    left_out: set[str] = set()
    for layer in reversed(checkpoint.layers):
        for path in _files(layer):
            name = path.relative_to(layer).as_posix()
            if path in weights:
                continue
            exported = any(PurePosixPath(part).match(pattern) for part in name.split("/") for pattern in EXPORTS)
            if exported or path.name in OWN or path.suffix in WEIGHTS:
                if path.suffix == ".safetensors" and not exported and path.parent not in homes:
                    raise MergeError(
                        f"{path} of {checkpoint.label} holds weights but belongs to no module of modules.json; such "
                        f"models (e.g. with a router) cannot be merged yet."
                    )
                left_out.add(name)
            else:
                sources[name] = path
    return Package(
        checkpoint.package_folder,
        tuple(sorted(sources)),
        tuple(sorted(left_out)),
        checkpoint.transformer,
        checkpoint.find("modules.json") is None,
        sources,
    )


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def complete(
    package: Package,
    target: Path,
    pooling: str | None,
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    max_tokens: int | None = None,
) -> None:
    """Make the product of plain transformers folders a complete sentence-transformers folder; others are complete.

    Args:
        package: what was copied.
        target: the product's folder, with ``config.json`` and tokenizer.
        pooling: ``cls``, ``mean`` or ``lasttoken``; not read for folders that say it themselves, nor is the rest.
        normalize: whether embeddings get length 1.
        prompts: name to prefix.
        max_tokens: longest text that the product reads; by default what tokenizer and config allow.

    Raises:
        MergeError: no or an unknown pooling, or a config without width.
    """
    package.check_pooling(pooling)
    if not package.is_plain:
        return
    assert pooling is not None
    config = read_json(target / "config.json")
    width = next((config[name] for name in WIDTHS if isinstance(config.get(name), int)), None)
    if width is None:
        raise MergeError(
            f"{package.folder / 'config.json'} names no width of the hidden states ({', '.join(WIDTHS)}). Save the "
            f"members as sentence-transformers folders, with SentenceTransformer(...).save(folder)."
        )
    write_modules(target, width, pooling, normalize, prompts or {}, max_tokens or longest_text(target, config))


def longest_text(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Longest text that tokenizer and positions of a transformers folder allow, in tokens; None without limit."""
    path = folder / "tokenizer_config.json"
    stated = [read_json(path).get("model_max_length") if path.exists() else None, config.get("max_position_embeddings")]
    limits = [int(limit) for limit in stated if isinstance(limit, int | float) and 0 < limit < ENDLESS]
    return min(limits, default=None)


def write_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Write the type of the weights into a transformer's ``config.json``.

    transformers loads a model in the type named there; a wrong one would silently round the merged weights.
    """
    path = folder / "config.json"
    config = read_json(path)
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
