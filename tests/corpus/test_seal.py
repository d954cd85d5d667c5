from __future__ import annotations

import errno
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.artifacts.tokens import EXAMPLE_FILE, TOKEN_FILE
from boom_ray.config import NearDuplicatesConfig
from boom_ray.corpus.decontaminate import NearTexts
from boom_ray.corpus.examples import Example
from boom_ray.corpus.schema import EXAMPLES, TOKENS
from boom_ray.corpus.seal import SINGLE, Sealing, SealPlan, bucket_pool, content_sum, join_pools, part_figures, seal
from boom_ray.corpus.sources import Fragment, fragments, locate
from boom_ray.corpus.staging import COUNTS, REJECTS, ReadPlan, Stage, bucket_count, read_fragment
from boom_ray.corpus.tokenizing import TokenRules, tokenize
from boom_ray.errors import DataError, StoreError
from boom_ray.hashing import normalized_text_key
from boom_ray.store import Store
from tests.corpus.conftest import byte_tokens, dataset, spec, write_jsonl

RULES = TokenRules("", False, 32, 48)


def staged(tmp_path, rows, buckets=1, strict=True, fragment_bytes=1 << 20, **fields):
    """What the first pass leaves, made without Ray; returns sealing and plan."""
    one = dataset(write_jsonl(tmp_path / "d.jsonl", rows), **fields)
    plan = ReadPlan(one, "key", buckets, 32, strict)
    stage = Stage(Store(tmp_path / "store"), str(tmp_path / "stage"))
    for number, fragment in enumerate(fragments(locate(one), 0, fragment_bytes)):
        pads.write_dataset(
            list(read_fragment(fragment, plan)),
            stage.path,
            format="parquet",
            partitioning=["dataset", "bucket"],
            partitioning_flavor="hive",
            basename_template=f"{number:03}-{{i}}.parquet",
            existing_data_behavior="overwrite_or_ignore",
        )
    return Sealing(stage.store, stage, spec(), {}), SealPlan(one, "key", RULES)


def seal_all(sealing, plan):
    counts = sealing.stage.counts(plan.key)
    buckets = sealing.stage.buckets(plan.key)
    pools = (
        join_pools(plan, *(bucket_pool(sealing, plan, bucket) for bucket in buckets)) if counts["labelled"] else None
    )
    return [seal(sealing, plan, bucket, pools) for bucket in buckets]


def read(part):
    with pa.memory_map(str(part.local() / TOKEN_FILE)) as stream:
        tokens = pa.ipc.open_file(stream).read_all()
        assert tokens.schema == TOKENS
        rows = tokens.to_pylist()
    return rows, pq.read_table(part.local() / EXAMPLE_FILE)


ROWS = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": [f"n{n}"]} for n in range(50)]


@pytest.mark.parametrize("buckets", [1, 4])
def test_rows_are_sorted_aligned_and_distinct(tmp_path, buckets):
    parts = seal_all(*staged(tmp_path, [*ROWS, *ROWS[:7]], buckets, fragment_bytes=500))
    rows, texts = [], []
    for part in parts:
        tokens, examples = read(part)
        assert examples.schema.equals(EXAMPLES)
        rows += tokens
        texts += examples.to_pylist()
    assert [row["id"] for row in rows] == sorted(Example(f"q{n}", [f"p{n}"], [f"n{n}"]).id() for n in range(50))
    for row, text in zip(rows, texts, strict=True):
        assert row["id"] == text["id"]
        assert row["query"] == byte_tokens(text["query"], 32)
        assert row["positives"] == [byte_tokens(text["positives"][0], 48)]
    figures = part_figures(parts)
    assert (figures["rows"], figures["duplicates"]) == (50, 7)
    assert figures["tokens"]["query_tokens"] == sum(len(row["query"]) for row in rows)


def test_content_hash_does_not_depend_on_buckets_or_order(tmp_path):
    one = part_figures(seal_all(*staged(tmp_path / "a", ROWS, 1)))
    four = part_figures(seal_all(*staged(tmp_path / "b", ROWS[::-1], 4, fragment_bytes=99)))
    other = part_figures(seal_all(*staged(tmp_path / "c", ROWS[:-1], 1)))
    assert one["content"] == four["content"] != other["content"]


tokens = st.lists(st.integers(0, 9), max_size=3)
row = st.tuples(tokens, st.lists(tokens, max_size=3), st.lists(tokens, max_size=3))


def as_batch(rows):
    """Token rows with ids 0, 1, 2…"""
    keys = ("query", "positives", "negatives")
    values = [dict(zip(keys, one, strict=True)) | {"id": n.to_bytes(16, "big")} for n, one in enumerate(rows)]
    values = [one | {"query_key": 0, "positive_keys": [], "negative_keys": []} for one in values]
    table = pa.Table.from_pylist(values, schema=TOKENS).combine_chunks()
    return table.to_batches()[0] if values else pa.RecordBatch.from_pylist([], schema=TOKENS)


@settings(deadline=None)
@given(rows=st.lists(row, max_size=6), other=st.lists(row, max_size=6), cut=st.integers(0, 6))
def test_content_sum_tells_all_contents_apart_and_adds_up(rows, other, cut):
    whole = as_batch(rows)
    assert (content_sum(whole) == content_sum(as_batch(other))) == (rows == other)
    first, second = content_sum(whole.slice(0, cut)), content_sum(whole.slice(min(cut, len(rows))))
    assert (first + second) % (1 << 128) == content_sum(whole)


def test_overlapping_examples_are_dropped_and_counted_by_task(tmp_path):
    sealing, plan = staged(tmp_path, ROWS)
    keys = {
        task: np.sort(np.array([normalized_text_key(text) for text in texts], dtype=np.uint64))
        for task, texts in {"a": ["Q3", "p4", "n5"], "b": [" q3 "], "c": ["x"]}.items()
    }
    sealing = Sealing(sealing.store, sealing.stage, sealing.tokenizer, keys)
    figures = part_figures(seal_all(sealing, plan))
    assert (figures["rows"], figures["overlapping"], figures["overlapping_by_task"]) == (48, 2, {"a": 2, "b": 1})


def test_a_labelled_dataset_takes_its_pools_from_all_buckets(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 5} for n in range(60)] + [{"text": "alone", "label": 9}]
    parts = seal_all(*staged(tmp_path, rows, 4, task_type="classification", label_negatives=3))
    labels = {f"text {n}": str(n % 5) for n in range(60)} | {"alone": "9"}
    for part in parts:
        for one in read(part)[1].to_pylist():
            assert labels[one["positives"][0]] == one["label"] == labels[one["query"]]
            assert one["label"] not in {labels[text] for text in one["negatives"]}
            assert len(one["negatives"]) == 3
    figures = part_figures(parts)
    assert (figures["rows"], figures["set_aside"]) == (60, {SINGLE: 1})


def test_held_out_texts_are_in_no_pool(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2} for n in range(8)]
    sealing, plan = staged(tmp_path, rows, task_type="classification", label_negatives=9)
    held_out = {"t": np.array([normalized_text_key("text 0")], dtype=np.uint64)}
    parts = seal_all(Sealing(sealing.store, sealing.stage, sealing.tokenizer, held_out), plan)
    (part,) = parts
    for one in read(part)[1].to_pylist():
        assert "text 0" not in [one["query"], *one["positives"], *one["negatives"]]


def test_near_duplicates_are_counted_apart_and_in_no_pool(tmp_path):
    texts = [f"a text about {word}, with some more words" for word in ("apples", "gardens", "harbours", "mountains")]
    rows = [{"text": text, "label": n % 2} for n, text in enumerate([*texts, "one", "two", "three", "four"])]
    sealing, plan = staged(tmp_path, rows, task_type="classification", label_negatives=9)
    held_out = {"t": np.array([normalized_text_key(texts[0])], dtype=np.uint64)}
    near = NearTexts.of({"t": [texts[0], f"{texts[1]}!"], "u": [texts[2].upper()]}, NearDuplicatesConfig())
    parts = seal_all(Sealing(sealing.store, sealing.stage, sealing.tokenizer, held_out, near), plan)
    figures = part_figures(parts)
    assert (figures["rows"], figures["overlapping"], figures["near_duplicates"]) == (5, 1, 2)
    assert figures["overlapping_by_task"] == {"t": 1}
    assert figures["near_duplicates_by_task"] == {"t": 1, "u": 1}
    for one in read(parts[0])[1].to_pylist():
        assert not {*texts[:3]} & {one["query"], *one["positives"], *one["negatives"]}
    for part in parts:
        del part.figures["near_duplicates"], part.figures["near_duplicates_by_task"]
    assert part_figures(parts)["near_duplicates"] == 0, "parts of earlier versions do not tell"


def test_one_label_only(tmp_path):
    rows = [{"text": f"text {n}", "label": "x"} for n in range(8)]
    with pytest.raises(DataError, match=r"Dataset d: .*at least two labels.*only label is 'x'"):
        seal_all(*staged(tmp_path, rows, task_type="clustering"))


def test_a_finished_part_is_not_made_again_even_without_its_staged_rows(tmp_path):
    sealing, plan = staged(tmp_path, ROWS)
    (part,) = seal_all(sealing, plan)
    sealing.stage.remove()
    assert seal(sealing, plan, "000", None) == part
    with pytest.raises(FileNotFoundError):
        seal(sealing, plan, "001", None)
    assert [path.name for path in (tmp_path / "store" / "part").iterdir()] == [part.key]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    sealing, plan = staged(tmp_path, ROWS)
    monkeypatch.setattr("boom_ray.corpus.seal.tokenize", full)
    with pytest.raises(StoreError, match=r"Writing the corpus under .*No space left.*run the same command again"):
        seal(sealing, plan, "000", None)
    assert list((tmp_path / "store" / "part").iterdir()) == []


def test_rejects_and_counts_stand_beside_the_examples(tmp_path):
    rows = [*ROWS[:2], {"query": "", "pos": ["p"]}, "{oops", {"query": "q"}]
    sealing, _ = staged(tmp_path, rows, strict=False)
    assert sealing.stage.counts("key") == Counter(
        {
            "read": 5,
            "contrastive": 2,
            "rejected: empty query": 1,
            "rejected: malformed JSON": 1,
            "rejected: missing column": 1,
        }
    )
    rejects = [json.loads(line) for line in sealing.stage.rejects("key")]
    assert [(one["line"], one["reason"]) for one in rejects] == [
        (3, "empty query"),
        (4, "malformed JSON"),
        (5, "missing column"),
    ]
    assert rejects[1]["row"] == "{oops"
    assert rejects[2]["row"] == '{"query": "q"}'
    assert sealing.stage.buckets("key") == ["000"]
    assert {COUNTS, REJECTS}.isdisjoint(sealing.stage.buckets("key"))


def test_a_strict_plan_names_file_and_line(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [*ROWS, {"query": "", "pos": ["p"]}])
    plan = ReadPlan(dataset(path), "key", 1, 32, strict=True)
    last = fragments(locate(dataset(path)), 0, 200)[-1]
    with pytest.raises(DataError, match=r"Dataset d, .*d\.jsonl:51: the column query is empty"):
        list(read_fragment(last, plan))


def test_long_fragments_come_in_several_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("boom_ray.corpus.staging.ROWS_PER_TABLE", 20)
    path = write_jsonl(tmp_path / "d.jsonl", ROWS)
    plan = ReadPlan(dataset(path), "key", 1, 32, strict=True)
    tables = list(read_fragment(Fragment(0, str(path), "jsonl", (), 0, None), plan))
    assert [table.num_rows for table in tables] == [20, 20, 11]  # the last has the counts, too


@given(size=st.integers(0, 1 << 42))
def test_buckets_are_a_power_of_two_of_bounded_size(size):
    count = bucket_count(size)
    assert count & (count - 1) == 0
    assert count == 512 or size / count <= 64 << 20


@given(example_ids=st.lists(st.binary(min_size=16, max_size=16)), power=st.integers(0, 9))
def test_buckets_in_order_are_ids_in_order(example_ids, power):
    plan = ReadPlan(dataset("x"), "key", 1 << power, 32, strict=True)
    ordered = sorted(example_ids)
    buckets = [plan.bucket_of(one) for one in ordered]
    assert buckets == sorted(buckets)
    assert all(int(name, 16) < 1 << power for name in buckets)


def test_tokenising_in_batches_gives_the_same_part(tmp_path, monkeypatch):
    whole = part_figures(seal_all(*staged(tmp_path / "a", ROWS)))
    monkeypatch.setattr("boom_ray.corpus.seal.ROWS_PER_BATCH", 7)
    assert part_figures(seal_all(*staged(tmp_path / "b", ROWS))) == whole


def test_sum_of_a_tokenised_batch_changes_with_the_tokenizer():
    examples = pa.Table.from_pylist([{"id": bytes(16), **vars(Example("q", ["p"]))}], schema=EXAMPLES).to_batches()[0]
    other = spec(query_template="x{text}")
    assert content_sum(tokenize(examples, spec(), RULES)) != content_sum(tokenize(examples, other, RULES))
