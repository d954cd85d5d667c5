"""Everything but weights that decides a model's vectors, by file, in one form whatever version wrote the files."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from boom_ray.hashing import file_digest
from boom_ray.merging.product.package import longest_text
from boom_ray.merging.reading.checkpoint import Checkpoint
from boom_ray.model.folder import modules, read_json

UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "__version__"})
"""Keys of JSON files that say where a model comes from or how it was saved, not what it computes."""
PER_CALL = frozenset({"truncation", "padding"})
"""Keys of tokenizer.json that every call sets anew."""
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
PROMPTS, TEXTS = "config_sentence_transformers.json", "sentence_bert_config.json"
UNSAID: dict[str, dict[str, Any]] = {
    PROMPTS: {"default_prompt_name": None, "similarity_fn_name": "cosine", "model_type": "SentenceTransformer"},
    TEXTS: {
        "do_lower_case": False,
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    },
    "Pooling": {"include_prompt": True},
    "Normalize": {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
}
"""What sentence-transformers 6.2 takes where a file of an older version does not say."""
TOKENIZING = "tokenizer_config.json"
SIDES = {"padding_side": "padding", "truncation_side": "truncation"}
"""Keys of tokenizer_config.json to the part of tokenizer.json that tells the direction where they are missing."""
SPECIAL_TOKENS = ("bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token")
CHANGES = ("add_bos_token", "add_eos_token", "do_lower_case", "strip_accents", "tokenize_chinese_chars")
"""Keys of tokenizer_config.json that change the ids of a text."""
POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of poolings before sentence-transformers 6."""


def named_facts(model: Checkpoint) -> Iterator[tuple[str, Any]]:
    """File and content, in one form for all versions; tokenizers by what they hold, prompts that are empty left out."""
    folder = model.package_folder
    parts = [(module.kind, module.path.relative_to(folder).as_posix()) for module in modules(folder)]
    yield "modules.json", [list(part) for part in parts]
    inner = f"{model.transformer}/" if model.transformer else ""
    config = _json(model, f"{inner}config.json")
    yield f"{inner}config.json", config
    for kind, place in parts:
        if kind != "Transformer" and model.find(f"{place}/config.json"):
            yield f"{place}/config.json", _module_facts(kind, _json(model, f"{place}/config.json"))
    stated = UNSAID[PROMPTS] | _json(model, PROMPTS)
    stated["prompts"] = {name: prompt for name, prompt in (stated.get("prompts") or {}).items() if prompt}
    stated["similarity_fn_name"] = stated["similarity_fn_name"] or "cosine"
    yield PROMPTS, stated
    texts = UNSAID[TEXTS] | _json(model, f"{inner}{TEXTS}")
    if texts.get("max_seq_length") is None:
        tokenizer = model.find(f"{inner}tokenizer_config.json")
        texts["max_seq_length"] = longest_text(tokenizer.parent, config) if tokenizer else None
    yield f"{inner}{TEXTS}", texts
    yield from _tokenizer_facts(model, inner)
    yield f"{inner}{TOKENIZING}", _tokenizer_settings(model, inner)


def _json(model: Checkpoint, name: str) -> dict[str, Any]:
    path = model.find(name)
    return dict(read_json(path)) if path else {}


def _module_facts(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    config = UNSAID.get(kind, {}) | config
    if kind == "Pooling":
        modes = [mode for key, mode in POOLING_MODES.items() if config.pop(key, False)] or ["mean"]
        config.setdefault("pooling_mode", modes[0] if len(modes) == 1 else modes)
        if "word_embedding_dimension" in config:
            config.setdefault("embedding_dimension", config.pop("word_embedding_dimension"))
    return config


def _tokenizer_facts(model: Checkpoint, inner: str) -> Iterator[tuple[str, Any]]:
    whole = model.find(f"{inner}tokenizer.json")
    if whole is not None:
        yield "tokenizer.json", {key: value for key, value in read_json(whole).items() if key not in PER_CALL}
        return
    for name in VOCABULARIES:
        path = model.find(f"{inner}{name}")
        if path is not None:
            yield name, file_digest(path)


def _tokenizer_settings(model: Checkpoint, inner: str) -> dict[str, Any]:
    """What is said of the keys that change ids or padding, special tokens as texts."""
    stated = _json(model, f"{inner}special_tokens_map.json") | _json(model, f"{inner}{TOKENIZING}")
    whole = _json(model, f"{inner}tokenizer.json")
    for side, part in SIDES.items():
        direction = (whole.get(part) or {}).get("direction")
        if stated.get(side) is None and direction is not None:
            stated[side] = str(direction).lower()
    for name in SPECIAL_TOKENS:
        if isinstance(stated.get(name), dict):
            stated[name] = stated[name].get("content")
    wanted = ("tokenizer_class", *SIDES, *SPECIAL_TOKENS, *CHANGES)
    return {name: stated[name] for name in wanted if stated.get(name) is not None}


def difference(place: str, left: Any, right: Any) -> tuple[str, Any, Any] | None:
    """`first_difference` of two facts of one place, with what versions of the libraries may leave unsaid there."""
    if place.endswith(TOKENIZING) and isinstance(left, dict) and isinstance(right, dict):
        return tokenizer_difference(left, right)
    return config_difference(left, right) if place.endswith("config.json") else first_difference(left, right)


def tokenizer_difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """`first_difference` of two tokenizer configs, where a key that one does not say has the default of its class.

    Where the class has none either (versions 4 of transformers save ``add_bos_token``, versions 5 do not), there is
    nothing to compare; tokenizer.json, which is compared as a whole, decides then.
    """
    for name in (*SIDES, *SPECIAL_TOKENS, *CHANGES):
        if left.get(name) == right.get(name):
            continue
        one, two = (_said(name, here, there) for here, there in ((left, right), (right, left)))
        if one != two and one is not None and two is not None:
            return name, one, two
    return None


def _said(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> Any:
    """A key's value, or the default of the class, which models of one kind share if only one of them names it."""
    import transformers

    if name in here:
        return here[name]
    kind = getattr(transformers, str(here.get("tokenizer_class") or there.get("tokenizer_class")), None)
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerBase)
    if name in SIDES:
        return getattr(kind, name, "right") if known else "right"
    if kind is None or not known:
        return None
    told = inspect.signature(kind).parameters.get(name)
    return None if told is None or told.default is told.empty else told.default


def first_difference(left: Any, right: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Dotted key and both values of the first difference of two JSON values, None when there is none."""
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return None if left == right else (key, left, right)
    for name in sorted(left.keys() | right.keys()):
        if name in UNIMPORTANT:
            continue
        found = first_difference(left.get(name), right.get(name), f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None


def config_difference(left: Any, right: Any) -> tuple[str, Any, Any] | None:
    """`first_difference` of two transformers configs, where what one version writes may be another one's default."""
    plain = first_difference(left, right)
    if plain is None:
        return None
    one, two = _in_full(left), _in_full(right)
    return plain if one is None or two is None else first_difference(one, two)


def _in_full(config: Any) -> dict[str, Any] | None:
    """The config with all defaults, as the installed transformers reads it; None when it does not know the model."""
    from transformers import CONFIG_MAPPING

    if not isinstance(config, dict) or config.get("model_type") not in CONFIG_MAPPING:
        return None
    try:
        known = {key: value for key, value in config.items() if key != "model_type"}
        whole: dict[str, Any] = CONFIG_MAPPING[config["model_type"]](**known).to_dict()
    except Exception:  # any complaint of transformers about such a config means that it cannot help to compare
        return None
    return whole


def short(value: Any) -> str:
    """A JSON value in an error, cut to 80 characters."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
