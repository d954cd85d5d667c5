from __future__ import annotations

import numpy as np
import pytest

from boom_ray.artifacts.tokens import TokenDataset, open_corpus
from boom_ray.errors import StoreError
from boom_ray.hashing import text_key
from boom_ray.store import Store
from tests.token_corpus import example, write_corpus, write_tokens


def test_rows_read_back_as_written_across_batches_and_parts(tmp_path):
    paths = [write_tokens(tmp_path / f"{name}.arrow", name, 21, labels=3, batch=4) for name in "xy"]
    data = TokenDataset(paths)
    assert len(data) == 42
    for part, name in enumerate("xy"):
        made = sorted((example(name, number, 2, f"l{number % 3}") for number in range(21)), key=lambda row: row["id"])
        for place, expected in enumerate(made):
            row = 21 * part + place
            found = data.example(row)
            assert found.query.tolist() == expected["query"]
            assert [text.tolist() for text in found.positives] == expected["positives"]
            assert [text.tolist() for text in found.negatives] == expected["negatives"]
            assert found.query_key == expected["query_key"]
            assert found.negative_keys.tolist() == expected["negative_keys"]
            assert found.label_key == expected["label_key"]
            assert int(data.ids[row]) == int.from_bytes(expected["id"][:8], "big")
        assert np.all(np.diff(data.ids[21 * part : 21 * part + 21].astype(object)) > 0)


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
