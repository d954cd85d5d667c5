"""A model folder written from plain tensors: complete enough to be merged, too small to take time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]
WriteModel = Callable[..., Path]
FILES: dict[str, Any] = {
    "config.json": {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 4, "dtype": "float32"},
    "tokenizer.json": {"model": {"vocab": {"a": 0}}, "truncation": {"max_length": 8}},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"pooling_mode": "mean"},
    "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "__version__": {"pytorch": "1"}},
}


def write_plain_model(
    folder: Path, tensors: Tensors, files: Mapping[str, Any] | None = None, modules: Mapping[str, Tensors] | None = None
) -> Path:
    """Write the folder; ``files`` replaces files (None leaves one out), ``modules`` adds Dense modules by folder."""
    content = FILES | dict(files or {})
    for number, module in enumerate(modules or {}, start=2):
        entry = {"idx": number, "name": str(number), "path": module, "type": "sentence_transformers.models.Dense"}
        content["modules.json"] = [*content["modules.json"], entry]
        content[f"{module}/config.json"] = {"in_features": 4}
    for file, value in content.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if value is not None:
            (folder / file).write_text(json.dumps(value), encoding="utf-8")
    for module, inner in {"": tensors, **(modules or {})}.items():
        save_file(
            {name: tensor.clone() for name, tensor in inner.items()},
            folder / module / "model.safetensors",
            metadata={"format": "pt"},
        )
    return folder
