from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.corpus import tokenizing
from boom_ray.corpus.examples import Example
from boom_ray.corpus.schema import EXAMPLES, TOKENS
from boom_ray.corpus.tokenizing import TokenRules, encode, tokenize
from boom_ray.hashing import text_key
from tests.corpus.conftest import byte_tokens, spec

words = st.text("abc é", min_size=1, max_size=8)


def batch(*examples: Example) -> pa.RecordBatch:
    rows = [{"id": one.id(), **vars(one)} for one in examples]
    return pa.Table.from_pylist(rows, schema=EXAMPLES).combine_chunks().to_batches()[0]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3), st.lists(words, max_size=3)), min_size=1)
)
def test_tokens_are_those_of_prompt_and_text_together(rows):
    model = spec(query_template="Do {task}: {text}", passage_template="P: {text}")
    found = tokenize(batch(*[Example(*row) for row in rows]), model, TokenRules("it", False, 12, 9))
    assert found.schema == TOKENS
    for (query, positives, negatives), row in zip(rows, found.to_pylist(), strict=True):
        assert row["query"] == byte_tokens(f"Do it: {query}", 12)
        assert row["positives"] == [byte_tokens(f"P: {text}", 9) for text in positives]
        assert row["negatives"] == [byte_tokens(f"P: {text}", 9) for text in negatives]
        assert row["query_key"] == text_key(query)
        assert row["positive_keys"] == [text_key(text) for text in positives]
        assert row["negative_keys"] == [text_key(text) for text in negatives]


def test_symmetric_passages_get_the_row_s_query_prompt():
    model = spec(query_template="{task}: {text}", passage_template="P: {text}")
    examples = batch(Example("q", ["p"]), Example("q", ["p"], ["n"], instruction="own"))
    first, second = tokenize(examples, model, TokenRules("it", True, 32, 32)).to_pylist()
    assert (first["query"], first["positives"]) == (byte_tokens("it: q", 32), [byte_tokens("it: p", 32)])
    assert second["query"] == byte_tokens("own: q", 32)
    assert second["positives"] + second["negatives"] == [byte_tokens(f"own: {text}", 32) for text in "pn"]


def test_labels_and_scores_travel_along():
    examples = batch(
        Example("q", ["p"], ["n"], label="l", positive_scores=[0.5], negative_scores=[0.25]),
        Example("r", ["s"], score=1.0),
    )
    first, second = tokenize(examples, spec(), TokenRules("", False, 32, 32)).to_pylist()
    assert (first["label_key"], first["score"], first["positive_scores"]) == (text_key("l"), None, [0.5])
    assert (second["label_key"], second["score"], second["negative_scores"]) == (None, 1.0, None)


def test_a_slice_of_a_batch_is_tokenised_as_itself():
    examples = batch(*[Example(f"q{n}", [f"p{n}"] * (n + 1), [f"n{n}"]) for n in range(5)])
    rules = TokenRules("", False, 32, 32)
    whole = tokenize(examples, spec(), rules).to_pylist()
    assert tokenize(examples.slice(2, 2), spec(), rules).to_pylist() == whole[2:4]


@pytest.mark.parametrize(("characters", "texts"), [(1, 100), (10, 2), (10**6, 3)])
def test_encoding_in_chunks_changes_nothing(monkeypatch, characters, texts):
    many = [f"text {n}" * (n % 5) for n in range(23)]
    whole = encode(many, spec(), 16)
    monkeypatch.setattr(tokenizing, "CHARACTERS_AT_ONCE", characters)
    monkeypatch.setattr(tokenizing, "TEXTS_AT_ONCE", texts)
    assert encode(many, spec(), 16) == whole
    assert len(encode([], spec(), 16)) == 0


def test_identity_names_what_changes_tokens():
    assert spec().identity() != spec(query_template="x{text}").identity()
    assert spec().identity() != spec(passage_template="x{text}").identity()
    assert spec().identity() == spec(gradient_checkpointing=True).identity()


def test_passages_of_an_asymmetric_dataset_get_their_own_instruction():
    model = spec(query_template="{task}: {text}", passage_template="P {task}: {text}")
    examples = batch(Example("sort", ["a list"]))
    plain = tokenize(examples, model, TokenRules("it", False, 32, 32, "of code"))
    expected = encode(["P of code: a list"], model, 32).to_pylist()
    assert plain["positives"].to_pylist() == [expected]
    same = tokenize(examples, model, TokenRules("it", True, 32, 32, "of code"))
    assert same["positives"].to_pylist() == [encode(["it: a list"], model, 32).to_pylist()]
