"""Examples as tokens: prompt and text together, through the `tokenizers` library, every distinct text once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boom_ray.config import ModelConfig
from boom_ray.corpus.schema import TOKENS
from boom_ray.hashing import digest, text_key

CHARACTERS_AT_ONCE = 1 << 20  # bounds the memory of the library's own results, about 100 bytes per token
TEXTS_AT_ONCE = 2048


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer and the templates around its texts.

    Attributes:
        json: ``tokenizers.Tokenizer.to_str()`` of the fast tokenizer, special tokens (EOS) included.
        model: its ``query_template`` and ``passage_template`` are used.
    """

    json: str
    model: ModelConfig

    @cached_property
    def digest(self) -> str:
        """Hash of the tokenizer alone."""
        return digest(self.json)

    def identity(self) -> dict[str, str]:
        """What determines the tokens of a text, besides limits and instructions."""
        return {
            "tokenizer": self.digest,
            "query_template": self.model.query_template,
            "passage_template": self.model.passage_template,
        }


@dataclass(frozen=True)
class TokenRules:
    """How the texts of one dataset become tokens.

    Attributes:
        instruction: of the dataset; a row's own replaces it.
        symmetric: passages get the query's prompt.
        max_query_tokens, max_passage_tokens: longest text, prompt and special tokens included; tokens.
        passage_instruction: of its passages, unless they get the query's prompt.
    """

    instruction: str
    symmetric: bool
    max_query_tokens: int
    max_passage_tokens: int
    passage_instruction: str = ""


_loaded: dict[str, Any] = {}


def load(spec: TokenizerSpec) -> Any:
    """The tokenizer; parsed once per process."""
    from tokenizers import Tokenizer

    if spec.digest not in _loaded:
        tokenizer = Tokenizer.from_str(spec.json)
        tokenizer.no_padding()
        _loaded[spec.digest] = tokenizer
    return _loaded[spec.digest]


def tokenize(examples: pa.RecordBatch, spec: TokenizerSpec, rules: TokenRules) -> pa.RecordBatch:
    """Tokens of a batch of examples.

    Args:
        examples: rows of schema `EXAMPLES`.
        spec: tokenizer and templates.
        rules: the dataset's.

    Returns:
        As many rows of schema `TOKENS`, in the same order.
    """
    instructions = [rules.instruction if own is None else own for own in examples["instruction"].to_pylist()]
    query_prompts = _each(instructions, spec.model.query_prompt)
    passage = spec.model.passage_prompt(rules.passage_instruction)
    passage_prompts = query_prompts if rules.symmetric else [passage] * examples.num_rows
    queries = examples["query"].to_pylist()
    columns = {
        "id": examples["id"],
        "query": _tokens(queries, query_prompts, spec, rules.max_query_tokens),
        "query_key": pa.array(_keys(queries), pa.uint64()),
        "label_key": _label_keys(examples["label"]),
    }
    for role, keys in (("positives", "positive_keys"), ("negatives", "negative_keys")):
        offsets, texts = _flat(examples[role])
        owner = np.repeat(np.arange(examples.num_rows), np.diff(offsets))
        prompts = [passage_prompts[row] for row in owner.tolist()]
        inner = _tokens(texts, prompts, spec, rules.max_passage_tokens)
        columns[role] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner)
        columns[keys] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(_keys(texts), pa.uint64()))
    columns |= {name: examples[name] for name in ("score", "positive_scores", "negative_scores")}
    return pa.RecordBatch.from_arrays([columns[name] for name in TOKENS.names], schema=TOKENS)


def _each(values: Sequence[str], function: Callable[[str], str]) -> list[str]:
    """``function`` of every value, called once per distinct one."""
    known = {value: function(value) for value in dict.fromkeys(values)}
    return [known[value] for value in values]


def _flat(column: pa.ListArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Offsets from 0 and all texts of a list column, which may be a slice."""
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)]), column.flatten().to_pylist()


def _tokens(texts: Sequence[str], prompts: Sequence[str], spec: TokenizerSpec, limit: int) -> pa.ListArray:
    """Token lists of ``prompt + text``; equal ones are tokenised once."""
    whole = [prompt + text for prompt, text in zip(prompts, texts, strict=True)] if any(prompts) else list(texts)
    places = {text: number for number, text in enumerate(dict.fromkeys(whole))}
    distinct = encode(list(places), spec, limit)
    if len(distinct) == len(whole):
        return distinct
    return distinct.take(pa.array([places[text] for text in whole], pa.int32()))


def encode(texts: list[str], spec: TokenizerSpec, limit: int) -> pa.ListArray:
    """Token ids of texts, special tokens included, cut to ``limit`` tokens."""
    tokenizer = load(spec)
    tokenizer.enable_truncation(limit)
    values: list[npt.NDArray[np.int32]] = []
    lengths: list[int] = []
    for start, end in _chunks(texts):
        for encoding in tokenizer.encode_batch_fast(texts[start:end]):
            values.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(values[-1]))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    flat = np.concatenate(values) if values else np.empty(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, pa.int32()))


def _chunks(texts: list[str]) -> list[tuple[int, int]]:
    """Ranges of at most `TEXTS_AT_ONCE` texts and about `CHARACTERS_AT_ONCE` characters."""
    ranges, start, size = [], 0, 0
    for number, text in enumerate(texts, 1):
        size += len(text)
        if size >= CHARACTERS_AT_ONCE or number - start >= TEXTS_AT_ONCE or number == len(texts):
            ranges.append((start, number))
            start, size = number, 0
    return ranges


def _keys(texts: list[str]) -> npt.NDArray[np.uint64]:
    return np.fromiter(map(text_key, texts), dtype=np.uint64, count=len(texts))


def _label_keys(labels: pa.StringArray) -> pa.UInt64Array:
    return pa.array([None if label is None else text_key(label) for label in labels.to_pylist()], pa.uint64())
