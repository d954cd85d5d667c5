from __future__ import annotations

import numpy as np
import pyarrow as pa

from boom_ray.corpus.decontaminate import held_out_digest, overlaps
from boom_ray.hashing import normalized_text_key


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
