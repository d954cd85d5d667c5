"""Model folders written from plain tensors: complete enough to be merged, too small to take time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from boom_ray.merging.recipe import MemberRef
from boom_ray.model.folder import weights_fingerprint

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


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a folder: ``write_model(name, tensors, files={...}, modules={"2_Dense": tensors})``; None removes a file."""

    def write(
        name: str, tensors: Tensors, files: Mapping[str, Any] | None = None, modules: Mapping[str, Tensors] | None = None
    ) -> Path:
        folder = tmp_path / name
        content = FILES | dict(files or {})
        for number, module in enumerate(modules or {}, start=2):
            entry = {"idx": number, "name": str(number), "path": module, "type": "sentence_transformers.models.Dense"}
            content["modules.json"] = [*content["modules.json"], entry]
            content[f"{module}/config.json"] = {"in_features": 4}
        for file, value in content.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                (folder / file).write_text(text, encoding="utf-8")
        for module, inner in {"": tensors, **(modules or {})}.items():
            save_file(dict(inner), folder / module / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write


@pytest.fixture
def ref() -> Callable[..., MemberRef]:
    """A reference to a folder, named after it."""

    def make(folder: Path, examples: int = 1, name: str | None = None) -> MemberRef:
        return MemberRef(name or folder.name, str(folder), weights_fingerprint(folder), examples)

    return make
