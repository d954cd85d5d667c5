from __future__ import annotations

import numpy as np
import pytest

from boom_ray.artifacts.tokens import TokenDataset, open_corpus
from boom_ray.errors import StoreError
from boom_ray.hashing import text_key
from boom_ray.store import Store
from tests.token_corpus import example, write_corpus, write_rows, write_tokens


def check(found, expected) -> None:
    assert found.query.tolist() == expected["query"]
    for role in ("positives", "negatives"):
        texts = getattr(found, role)
        assert [text.tolist() for text in texts] == expected[role]
        assert len(texts) == len(expected[role])
        assert [texts[number].tolist() for number in range(len(texts))] == expected[role]
        assert [text.tolist() for text in texts.take(range(len(texts)))] == expected[role]
    assert found.query_key == expected["query_key"]
    assert found.positive_keys.tolist() == expected["positive_keys"]
    assert found.negative_keys.tolist() == expected["negative_keys"]
    assert found.label_key == expected["label_key"]
    assert found.score == expected["score"]
    for role in ("positive_scores", "negative_scores"):
        scores = getattr(found, role)
        assert (None if scores is None else scores.tolist()) == expected[role]


def test_rows_read_back_as_written_across_batches_and_parts(tmp_path):
    paths = [write_tokens(tmp_path / f"{name}.arrow", name, 21, labels=3, batch=4) for name in "xy"]
    data = TokenDataset(paths)
    assert len(data) == 42
    for part, name in enumerate("xy"):
        made = sorted((example(name, number, 2, f"l{number % 3}") for number in range(21)), key=lambda row: row["id"])
        for place, expected in enumerate(made):
            row = 21 * part + place
            check(data.example(row), expected)
            assert int(data.ids[row]) == int.from_bytes(expected["id"][:8], "big")
        assert np.all(np.diff(data.ids[21 * part : 21 * part + 21].astype(object)) > 0)


def test_null_and_empty_columns_among_others(tmp_path):
    """Labels, grades and teachers' scores that only some rows of a batch have; more rows than bits of a byte."""
    made = [
        example("x", number, number % 3, "l" if number % 4 else None, 1 + number % 2, scored=number % 3 > 0)
        for number in range(40)
    ]
    for row in made[::7]:
        row["negative_scores"] = None
    data = TokenDataset([write_rows(tmp_path / "x.arrow", made, batch=19)])
    for row, expected in enumerate(sorted(made, key=lambda row: row["id"])):
        check(data.example(row), expected)
    assert {data.example(row).score is None for row in range(40)} == {True, False}


def test_many_rows_at_once_are_the_single_ones(tmp_path):
    data = TokenDataset([write_tokens(tmp_path / f"{name}.arrow", name, 9, batch=4) for name in "xy"])
    rows = np.array([17, 0, 9, 8, 0])
    found = data.examples(rows)
    assert [one.query_key for one in found] == [data.example(row).query_key for row in rows.tolist()]


def test_texts_beyond_the_last_are_an_error(tmp_path):
    found = TokenDataset([write_tokens(tmp_path / "x.arrow", "x", 3, negatives=2)]).example(1)
    with pytest.raises(IndexError):
        found.negatives[2]


def test_unlabelled_and_damaged(tmp_path):
    path = write_tokens(tmp_path / "a.arrow", "a", 3)
    assert TokenDataset([path]).example(0).label_key is None
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"a\.arrow cannot be read"):
        TokenDataset([path])


def test_a_missing_part_is_named(tmp_path):
    store = Store(tmp_path)
    parts = write_corpus(store, {"a": 4})
    assert len(open_corpus(store, parts)["a"]) == 4
    with pytest.raises(StoreError, match="Part 00 of the corpus is missing"):
        open_corpus(store, {"a": ["00"]})


def test_keys_are_those_of_the_texts():
    assert example("d", 1, 0, "label")["label_key"] == text_key("label")
