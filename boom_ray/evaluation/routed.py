"""Model folders with a Router, which sends queries and documents through modules of their own: checked and hashed.

Sentence-transformers keeps them as one module whose folder holds ``router_config.json`` and a folder per inner module.
Folders without one are left to `boom_ray.model.folder`.
"""

from __future__ import annotations

from pathlib import Path

from boom_ray.errors import ModelError
from boom_ray.hashing import digest, file_digest
from boom_ray.model.folder import (
    check_folder,
    modules,
    prompts_digest,
    read_json,
    refuse_pickles,
    weights_fingerprint,
)

KINDS = frozenset({"Router", "Asym"})


def is_routed(folder: Path) -> bool:
    """Whether a sentence-transformers folder has a Router."""
    return folder.is_dir() and any(module.kind in KINDS for module in modules(folder))


def inner_modules(folder: Path) -> dict[Path, str]:
    """Folders of the modules inside Routers, and their kinds.

    Raises:
        ModelError: the Router's configuration is missing or malformed.
    """
    found: dict[Path, str] = {}
    for module in modules(folder):
        if module.kind in KINDS:
            place = module.path / "router_config.json"
            config = read_json(place if place.exists() else module.path / "config.json")  # what older versions wrote
            types = config.get("types") if isinstance(config, dict) else None
            if not isinstance(types, dict) or not types:
                raise ModelError(f"{place} does not name the Router's modules (types). Copy the model again.")
            found |= {module.path / name: str(kind).rsplit(".", 1)[-1] for name, kind in types.items()}
    return found


def check_model(folder: Path) -> None:
    """Check that a model folder can be evaluated, with a Router or without.

    Raises:
        ModelError: something is missing, or weights are there only in a pickle format, which is not opened.
    """
    if not is_routed(folder):
        check_folder(folder)
        return
    for place, kind in inner_modules(folder).items():
        if kind == "Transformer":
            check_folder(place)
        elif not place.is_dir():
            raise ModelError(f"{place} is missing; the model folder is incomplete.")
        refuse_pickles(place)
    for module in modules(folder):
        refuse_pickles(module.path)


def model_hashes(folder: Path) -> tuple[str, str]:
    """Hash of all weights, and hash of all else that determines a model's embeddings.

    Raises:
        ModelError: see `weights_fingerprint` and `inner_modules`.
    """
    if not is_routed(folder):
        return weights_fingerprint(folder), prompts_digest(folder)
    inner = sorted(inner_modules(folder))
    places = {*inner, *(module.path for module in modules(folder) if module.kind not in KINDS)}
    weights = {
        place.relative_to(folder).as_posix(): weights_fingerprint(place)
        for place in places
        if any(place.glob("*.safetensors"))
    }
    settings = [path for place in inner for path in sorted(place.rglob("*")) if path.suffix != ".safetensors"]
    settings += [path for module in modules(folder) for path in module.path.glob("*.json")]
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in settings if path.is_file()}
    return digest(weights), digest({"model": prompts_digest(folder), "files": files})
