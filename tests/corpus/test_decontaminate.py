from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from boom_ray.config import NearDuplicatesConfig, RunConfig, load_config
from boom_ray.corpus.decontaminate import NearTexts, held_out_digest, near_overlaps, near_texts_digest, overlaps
from boom_ray.errors import ConfigError
from boom_ray.hashing import normalized_text_key

DEFAULT = NearDuplicatesConfig()


def keys(*texts):
    return np.sort(np.array([normalized_text_key(text) for text in texts], dtype=np.uint64))


def table(*rows):
    return pa.table({"query": [query for query, _ in rows], "positives": [positives for _, positives in rows]})


def test_queries_and_any_positive_count_case_and_space_do_not():
    examples = table(("What  is IT", ["a"]), ("free", ["b", "The\tAnswer"]), ("free too", ["c"]), ("x", []))
    found = overlaps(
        examples, {"t": keys("what is it", "the answer", "nothing"), "u": keys("WHAT IS IT"), "v": keys("z")}
    )
    assert {task: hit.tolist() for task, hit in found.items()} == {
        "t": [True, True, False, False],
        "u": [True, False, False, False],
    }


def test_without_held_out_texts_nothing_is_looked_at():
    assert overlaps(table(("a", ["b"])), {}) == {}
    assert overlaps(table(("a", ["b"])), {"t": keys()}) == {}
    assert overlaps(table(("a", ["b"])).slice(0, 0), {"t": keys("a")}) == {}


def test_digest_tells_texts_and_tasks_apart():
    digests = {held_out_digest(one) for one in ({}, {"t": keys("a")}, {"t": keys("b")}, {"u": keys("a")})}
    assert len(digests) == 4


LONG = "how can i reset the password of my online banking account"
NEAR = "How can I reset the password of my online banking accounts?"


def test_near_duplicates_of_every_task_among_queries_and_positives():
    near = NearTexts.of({"t": [LONG, "short"], "u": ["another text that is long enough", LONG], "v": ["x"]}, DEFAULT)
    assert {task: places.tolist() for task, places in near.places.items()} == {"t": [0, 1], "u": [0, 2], "v": [3]}
    examples = table((NEAR, ["a"]), ("free", ["b", "Another text, that is long enough!"]), ("Short", ["X"]), ("x", []))
    found = near_overlaps(examples, near)
    assert {task: hit.tolist() for task, hit in found.items()} == {
        "t": [True, False, False, False],
        "u": [True, True, False, False],
    }
    assert near_overlaps(examples.slice(1, 1), near)["u"].tolist() == [True]
    assert near_overlaps(examples.slice(0, 0), near) == {}


def test_digest_of_near_texts_tells_texts_and_tasks_apart_but_not_their_order():
    one = near_texts_digest({"t": ["a", "B"]})
    assert near_texts_digest({"t": ["B", "a", "a"]}) == one
    others = [
        near_texts_digest(texts) for texts in ({}, {"t": ["a", "b"]}, {"u": ["a", "B"]}, {"t": ["a"], "u": ["B"]})
    ]
    assert len({one, *others}) == 5


def test_near_duplicates_are_configured_beside_exact_ones(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: a\ncorpus: {datasets: [{name: a, source: a.jsonl, task_type: sts}]}\n")
    assert load_config(RunConfig, path).corpus.near_duplicates is None
    assert load_config(RunConfig, path, ["corpus.near_duplicates={}"]).corpus.near_duplicates == DEFAULT
    changed = load_config(RunConfig, path, ["corpus.near_duplicates.threshold=0.9"]).corpus.near_duplicates
    assert changed == NearDuplicatesConfig(threshold=0.9)
    with pytest.raises(ConfigError, match=r"corpus\.near_duplicates: decontaminate=false keeps evaluation texts"):
        load_config(RunConfig, path, ["corpus.near_duplicates={}", "corpus.decontaminate=false"])
