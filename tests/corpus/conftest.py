"""A byte-level tokenizer whose output has a closed form, and small sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from boom_ray.config import CorpusConfig, DatasetConfig, ModelConfig
from boom_ray.corpus.tokenizing import TokenizerSpec

CLS, SEP = 256, 257
Write = Callable[..., Path]


def byte_tokenizer() -> str:
    """JSON of a tokenizer: [CLS], one token per UTF-8 byte, [SEP]."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate(alphabet)} | {"[CLS]": CLS, "[SEP]": SEP}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return str(tokenizer.to_str())


def byte_tokens(text: str, limit: int) -> list[int]:
    """What `byte_tokenizer` must give, computed without it (GPT-2's table of bytes)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    numbers = {sign: number for number, sign in enumerate(sorted(signs.values()))}
    return [CLS, *[numbers[signs[byte]] for byte in text.encode()][: limit - 2], SEP]


def spec(**model: Any) -> TokenizerSpec:
    return TokenizerSpec(byte_tokenizer(), ModelConfig(**model))


def dataset(source: Path | str, task_type: str = "retrieval", name: str = "d", **fields: Any) -> DatasetConfig:
    return DatasetConfig(name=name, source=str(source), task_type=task_type, **fields)


def corpus(*datasets: DatasetConfig, **fields: Any) -> CorpusConfig:
    return CorpusConfig(datasets=datasets, **({"max_query_tokens": 32, "max_passage_tokens": 48} | fields))


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One line per row; texts go out as they are, for lines that are no JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    """Writes rows into a file of the test's folder."""

    def write(*rows: Any, name: str = "data.jsonl") -> Path:
        return write_jsonl(tmp_path / name, list(rows))

    return write
