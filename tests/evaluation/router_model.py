"""A tiny sentence-transformers folder that embeds queries and documents with different transformers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny_model import make_tiny_model

PACKAGE = "sentence_transformers.models"


def make_router_model(folder: Path, prompts: dict[str, str] | None = None) -> Path:
    """Write it and return it; texts without a role go the documents' way."""
    types = {}
    for seed, role in enumerate(("query", "document")):
        make_tiny_model(folder / f"{role}_0_Transformer", seed=seed, normalize=False)
        (folder / f"{role}_0_Transformer" / "modules.json").unlink()
        (folder / f"{role}_0_Transformer" / "1_Pooling").rename(folder / f"{role}_1_Pooling")
        types |= {
            f"{role}_{place}_{kind}": f"{PACKAGE}.{kind}" for place, kind in enumerate(("Transformer", "Pooling"))
        }
    structure = {role: [name for name in types if name.startswith(role)] for role in ("query", "document")}
    parameters = {"default_route": "document", "allow_empty_key": True}
    router = {"types": types, "structure": structure, "parameters": parameters}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{PACKAGE}.Router"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{PACKAGE}.Normalize"},
    ]
    settings = {"prompts": prompts or {}, "default_prompt_name": None}
    (folder / "1_Normalize").mkdir()
    for name, value in (("router_config", router), ("modules", modules), ("config_sentence_transformers", settings)):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder
