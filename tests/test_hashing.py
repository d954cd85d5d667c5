from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.hashing import (
    canonical_json,
    digest,
    file_digest,
    mix64,
    normalized_text_key,
    stream_key,
    text_id,
    text_key,
    unit_interval,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
U64 = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """The reference in exact integers (Steele, Lea, Flood 2014, figure 17): next state, then its finaliser."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_known_values_stay_for_ever() -> None:
    """Stored artifacts are found by these: a change here orphans every store."""
    assert canonical_json({"b": [1, 2.5, None, True], "a": "é"}) == '{"a":"é","b":[1,2.5,null,true]}'
    assert digest({"a": 1}) == hashlib.blake2b(b'{"a":1}', digest_size=16).hexdigest()
    assert digest({"a": 1}) == "2c6b113b8dd15ffbded9860b43eb0c6c"
    assert text_key("") == 0x2D06800538D394C2  # XXH3-64 of nothing, from the specification of xxHash
    assert text_id().hex() == "99aa06d3014798d86001c324468d497f"  # XXH3-128 of nothing
    assert stream_key(0, "bag", "bag-80", "msmarco") == 1876748751345826608


def test_mix64_gives_the_published_sequence_of_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 1234567, as in the test vectors of its public implementations."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + number * gamma) & MASK for number in range(5)], dtype=np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert mix64(states, 0).tolist() == expected


@given(st.lists(U64, max_size=20), U64)
def test_mix64_equals_the_exact_integer_reference(values: list[int], key: int) -> None:
    got = mix64(np.array(values, dtype=np.uint64), key)
    assert got.dtype == np.uint64
    assert got.tolist() == [splitmix64(value ^ key) for value in values]


@given(st.lists(U64, unique=True, max_size=50), U64)
def test_mix64_never_maps_two_values_to_one(values: list[int], key: int) -> None:
    assert len(set(mix64(np.array(values, dtype=np.uint64), key).tolist())) == len(values)


def test_mix64_of_counters_is_uniform_and_keys_are_independent() -> None:
    counters = np.arange(100_000, dtype=np.uint64)
    first, second = (unit_interval(mix64(counters, stream_key(0, "test", number))) for number in (1, 2))
    counts = np.histogram(first, bins=100, range=(0, 1))[0]
    chi2 = float(((counts - 1000.0) ** 2 / 1000).sum())
    assert 50 < chi2 < 165, "99 degrees of freedom: outside with probability below 1e-4"
    assert abs(float(np.corrcoef(first, second)[0, 1])) < 4 / math.sqrt(len(counters))


def test_unit_interval_covers_zero_but_never_one() -> None:
    edges = unit_interval(np.array([0, 2**11, MASK], dtype=np.uint64))
    assert edges.tolist() == [0.0, 2.0**-53, 1 - 2.0**-53]


@given(JSON)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object) -> None:
    def reversed_keys(one: object) -> object:
        if isinstance(one, dict):
            return {key: reversed_keys(one[key]) for key in reversed(list(one))}
        return [reversed_keys(item) for item in one] if isinstance(one, list) else one

    assert canonical_json(reversed_keys(value)) == canonical_json(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_numbers_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(value)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_text_ids_are_equal_only_for_equal_sequences(first: list[str], second: list[str]) -> None:
    assert (text_id(*first) == text_id(*second)) == (first == second)
    assert len(text_id(*first)) == 16


def test_text_ids_know_where_a_text_ends_and_take_any_text() -> None:
    assert len({text_id("ab", "c"), text_id("a", "bc"), text_id("abc"), text_id("abc", "")}) == 4
    assert text_id("\ud800") != text_id("\ud801"), "lone surrogates, as JSON files hold them"


def test_normalized_keys_ignore_case_and_spacing_only() -> None:
    assert normalized_text_key("  What is\tRay?\n") == normalized_text_key("what  IS ray?") == text_key("what is ray?")
    assert normalized_text_key("STRASSE") == normalized_text_key("straße")
    assert normalized_text_key("what is ray") != normalized_text_key("what is ray?")


@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1])
def test_file_digest_is_the_digest_of_all_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    assert file_digest(path) == xxhash.xxh3_128_hexdigest(data[:size])


def test_hashes_do_not_depend_on_pythons_hash_seed() -> None:
    code = "from boom_ray.hashing import *; print(digest({'x': 1, 'y': [2]}), text_id('a').hex(), stream_key(1, 'a'))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert outputs == {f"{digest({'x': 1, 'y': [2]})} {text_id('a').hex()} {stream_key(1, 'a')}\n"}
