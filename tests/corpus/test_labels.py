from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.corpus import labels
from boom_ray.corpus.examples import Example
from boom_ray.corpus.labels import contrast, make_pools
from boom_ray.corpus.schema import EXAMPLES
from boom_ray.errors import DataError

rows = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.sampled_from("xyz"), min_size=2, max_size=40)


def table(pairs):
    """Examples of (text, label) pairs, sorted by id."""
    made = [Example(text, label=label) for text, label in pairs]
    values = [{"id": one.id(), **vars(one)} for one in sorted(made, key=lambda one: one.id())]
    return pa.Table.from_pylist(values, schema=EXAMPLES)


@settings(deadline=None)
@given(data=rows, wanted=st.integers(1, 5), kind=st.sampled_from(["text", "label"]))
def test_positives_share_the_label_and_negatives_do_not(data, wanted, kind):
    examples = table(data.items())
    if len(set(data.values())) < 2:
        with pytest.raises(DataError, match="at least two labels"):
            make_pools([examples])
        return
    found, single = contrast(examples, make_pools([examples]), kind, wanted)
    sizes = {label: list(data.values()).count(label) for label in data.values()}
    assert single == (sum(size == 1 for size in sizes.values()) if kind == "text" else 0)
    assert found.num_rows == len(data) - single
    for row in found.to_pylist():
        others = len(sizes) - 1 if kind == "label" else len(data) - sizes[row["label"]]
        (positive,), negatives = row["positives"], row["negatives"]
        assert len(negatives) == len(set(negatives)) <= wanted
        if kind == "label":
            assert positive == row["label"]
            assert set(negatives) <= set(sizes) - {positive}
            assert len(negatives) >= min(wanted, others) - (row["query"] in sizes)
        else:
            assert data[positive] == row["label"]
            assert positive != row["query"]
            assert all(data[text] != row["label"] for text in negatives)
            assert len(negatives) == min(wanted, others)


@settings(deadline=None)
@given(data=rows.filter(lambda data: len(set(data.values())) > 1), cut=st.integers(1, 7))
def test_pools_do_not_depend_on_how_examples_are_divided(data, cut):
    examples = table(data.items())
    pieces = [examples.slice(start, cut) for start in range(0, examples.num_rows, cut)]
    assert make_pools(reversed(pieces)) == make_pools([examples])


def test_pools_keep_the_same_sample_however_divided(monkeypatch):
    monkeypatch.setattr(labels, "POOL", 5)
    examples = table([(f"text {n}", f"label {n % 3}") for n in range(100)])
    whole = make_pools([examples])
    assert {high - low for low, high in whole.ranges.values()} == {5}
    assert make_pools([examples.slice(60), examples.slice(0, 60)]) == whole


def test_many_labels_share_the_room(monkeypatch):
    monkeypatch.setattr(labels, "POOL_TOTAL", 60)
    examples = table([(f"text {n}", f"label {n % 10}") for n in range(100)])
    pools = make_pools([examples.slice(0, 50), examples.slice(50)])
    assert {high - low for low, high in pools.ranges.values()} == {6}


def test_draws_are_spread_over_the_other_labels():
    examples = table([(f"text {n}", f"label {n % 4}") for n in range(2000)])
    found, _ = contrast(examples, make_pools([examples]), "text", 3)
    label_of = {f"text {n}": n % 4 for n in range(2000)}
    drawn = np.array(
        [label_of[text] for row in found.to_pylist() if row["label"] == "label 0" for text in row["negatives"]]
    )
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares[0] == 0
    assert np.all(np.abs(shares[1:] - 1 / 3) < 0.06)  # 1500 draws: standard deviation 0.012


def test_one_text_under_two_labels_is_never_its_own_negative():
    examples = table([("same", "a"), ("same", "b"), ("other", "a"), ("another", "b")])
    found, _ = contrast(examples, make_pools([examples]), "text", 3)
    for row in found.to_pylist():
        assert row["query"] not in row["negatives"] + row["positives"]
        assert not set(row["positives"]) & set(row["negatives"])
