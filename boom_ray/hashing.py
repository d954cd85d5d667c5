"""Hashes that decide identity and order: content keys of artifacts and keyed 64-bit hashes of examples.

Nothing here depends on Python's hash seed, the machine or the order of dictionaries, so a value computed on one
worker is the value computed on any other (DESIGN.md section 3, determinism).
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

U64 = npt.NDArray[np.uint64]


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: ``value`` holds NaN or infinity, which have no JSON form.
        TypeError: ``value`` holds something that is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Content key of a JSON value: 32 hexadecimal digits (128 bits of BLAKE2b)."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def file_digest(path: str | Path) -> str:
    """Content hash of one local file: 32 hexadecimal digits (XXH3-128), read in 4 MiB pieces."""
    state = xxhash.xxh3_128()
    with Path(path).open("rb") as stream:
        while piece := stream.read(4 << 20):
            state.update(piece)
    return state.hexdigest()


def text_id(*parts: str) -> bytes:
    """16-byte id of a sequence of texts (XXH3-128); lengths are hashed too, so ``("ab", "c") != ("a", "bc")``."""
    state = xxhash.xxh3_128()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def text_key(text: str) -> int:
    """Unsigned 64-bit hash of one text (XXH3-64)."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def normalized_text_key(text: str) -> int:
    """Unsigned 64-bit hash of a text regardless of case and spacing: case-folded, white space collapsed, XXH3-64.

    Texts of evaluation sets and training data are compared by it.
    """
    return text_key(" ".join(text.casefold().split()))


def stream_key(*parts: str | int) -> int:
    """Unsigned 64-bit key of a named random stream, e.g. ``stream_key(seed, "bag", name, dataset)``."""
    data = canonical_json(list(parts)).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def mix64(values: U64, key: int) -> U64:
    """Keyed hash of every value: the finaliser of SplitMix64 over ``value XOR key``.

    Args:
        values: any shape, uint64.
        key: a stream key, see `stream_key`.

    Returns:
        Same shape, uint64, uniform over 64 bits; equal values give equal hashes under one key.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = (values ^ np.uint64(key)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit_interval(hashes: U64) -> npt.NDArray[np.float64]:
    """Map 64-bit hashes to [0, 1) with the 53 bits that a float64 holds exactly."""
    return (hashes >> np.uint64(11)).astype(np.float64) * math.ldexp(1.0, -53)
