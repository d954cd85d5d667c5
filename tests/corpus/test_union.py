"""Corpora that came one after the other are the corpus that they would be at once."""

from __future__ import annotations

import pytest

from boom_ray.corpus.ingest import ingest
from boom_ray.corpus.union import union
from boom_ray.errors import DataError
from boom_ray.store import Store
from tests.corpus.conftest import corpus, dataset, spec, write_jsonl

ROWS = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": [f"n{n}"]} for n in range(40)]


@pytest.mark.ray
def test_one_after_the_other_is_all_at_once(ray_cluster, tmp_path):
    store, tokenizer = Store(tmp_path / "store"), spec()
    datasets = [dataset(write_jsonl(tmp_path / f"{n}.jsonl", ROWS[n::3]), name=n * "x" + "d") for n in range(3)]
    first, second, third = (ingest(store, corpus(one), tokenizer, {}) for one in datasets)
    whole = union(store, [union(store, [first, second]), third])
    assert union(store, [third, first, second]).key == whole.key
    count = len(store.finished("corpus"))
    at_once = ingest(store, corpus(*datasets), tokenizer, {})
    assert (at_once.key, at_once.fingerprint) == (whole.key, whole.fingerprint)
    assert at_once.figures == whole.figures and len(store.finished("corpus")) == count
    other = ingest(store, corpus(dataset(tmp_path / "1.jsonl", name="d")), tokenizer, {})
    with pytest.raises(DataError, match="two datasets called d"):
        union(store, [first, other])
