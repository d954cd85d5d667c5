from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.plan import Step
from boom_ray.artifacts.tokens import TokenDataset
from boom_ray.hashing import mix64, stream_key
from tests.token_corpus import example, write_rows, write_tokens

MIXED = [example("c", number, number % 6, None, 1 + number % 3, scored=number % 4 != 3) for number in range(30)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, TokenDataset]:
    folder = tmp_path_factory.mktemp("batches")
    return {
        "a": TokenDataset([write_tokens(folder / "a.arrow", "a", 20, negatives=5)]),
        "b": TokenDataset([write_tokens(folder / "b.arrow", "b", 20, negatives=0, labels=4)]),
        "c": TokenDataset([write_rows(folder / "c.arrow", MIXED, batch=4)]),
    }


def read(corpus, step: Step, rank: int = 0, workers: int = 1, negatives: int = 3):
    return BatchReader(corpus, negatives, 7, rank, workers).read(step)


def test_ranks_share_the_whole_steps_hashes_and_split_its_texts(corpus):
    step = Step("a", 0, np.array([3, 1, 4, 15]))
    whole = read(corpus, step)
    parts = [read(corpus, step, rank, 2) for rank in range(2)]
    for part in parts:
        assert torch.equal(part.candidate_keys, whole.candidate_keys)
        assert torch.equal(part.present, whole.present)
    joined = [part.texts[place].tolist() for part in parts for place in part.index.reshape(-1).tolist()]
    assert joined == [whole.texts[place].tolist() for place in whole.index.reshape(-1).tolist()]
    first = corpus["a"].example(3)
    assert whole.texts[whole.index[0, 0]].tolist() == first.query.tolist()
    assert whole.texts[whole.index[0, 1]].tolist() == first.positives[0].tolist()


def test_more_workers_than_examples(corpus):
    parts = [read(corpus, Step("a", 0, np.array([3, 1])), rank, 4) for rank in range(4)]
    assert sorted(len(part.index) for part in parts) == [0, 0, 1, 1]
    assert {part.index.shape[1] for part in parts} == {5}


def test_negatives_are_chosen_anew_each_epoch_and_always_the_same(corpus):
    rows = np.arange(10)
    one, again, other = (read(corpus, Step("a", epoch, rows)) for epoch in (0, 0, 1))
    assert torch.equal(one.candidate_keys, again.candidate_keys)
    assert not torch.equal(one.candidate_keys, other.candidate_keys)
    for row in range(10):
        known = set(corpus["a"].example(row).negative_keys.view(np.int64).tolist())
        chosen = one.candidate_keys[row, 1:].tolist()
        assert len(set(chosen)) == 3
        assert set(chosen) <= known


def test_without_negatives_and_with_labels(corpus):
    batch = read(corpus, Step("b", 0, np.arange(6)))
    assert batch.present.shape == (6, 1)
    assert len(set(batch.labels.tolist())) <= 4
    assert read(corpus, Step("a", 0, np.arange(2))).labels is None


def test_equal_texts_are_encoded_once(corpus):
    batch = read(corpus, Step("a", 0, np.array([2, 2, 2])))
    assert len(batch.texts) == 5  # a query, a positive, three negatives
    assert torch.equal(batch.index[0], batch.index[1])


@pytest.mark.parametrize("negatives", [0, 2, 9])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_step_is_what_the_rows_say(corpus, negatives, epoch):
    """Row by row with plain Python, from the rows that were written."""
    rows = np.random.default_rng(epoch).permutation(30)[:12]
    batch = read(corpus, Step("c", epoch, rows), negatives=negatives)
    written = sorted(MIXED, key=lambda row: row["id"])
    key = stream_key("choice", 7, epoch, "c")
    for place, row in enumerate(rows.tolist()):
        made = written[row]
        value = int(mix64(np.array([int.from_bytes(made["id"][:8], "big")], dtype=np.uint64), key)[0])
        chosen = value * len(made["positives"]) // 2**64
        order = mix64(np.arange(len(made["negatives"]), dtype=np.uint64), value)
        numbers = sorted(sorted(range(len(order)), key=lambda number, order=order: order[number])[:negatives])
        texts = [made["query"], made["positives"][chosen], *(made["negatives"][number] for number in numbers)]
        absent = batch.index.shape[1] - len(texts)
        assert [batch.texts[text].tolist() for text in batch.index[place]] == texts + [texts[1]] * absent
        assert batch.present[place].tolist() == [True] * (len(texts) - 1) + [False] * absent
        passages = [made["positive_keys"][chosen], *(made["negative_keys"][number] for number in numbers)]
        assert unsigned(batch.candidate_keys[place]) == passages + [0] * absent
        assert unsigned(batch.query_keys[place : place + 1]) == [made["query_key"]]
        assert set(unsigned(batch.known_positives[place])) == {passages[0]}
        assert same([made["score"]], batch.scores[place : place + 1])
        if made["positive_scores"] is None:
            taught = [math.nan] * len(passages)
        else:
            taught = [made["positive_scores"][chosen], *(made["negative_scores"][number] for number in numbers)]
        assert same(taught + [0.0] * absent, batch.teacher[place])


def unsigned(keys: torch.Tensor) -> list[int]:
    return keys.numpy().view(np.uint64).tolist()


def same(expected: list[float | None], found: torch.Tensor) -> bool:
    wanted = torch.tensor([math.nan if one is None else one for one in expected])
    return found.dtype == torch.float32 and torch.equal(wanted.nan_to_num(-99), found.nan_to_num(-99))


def test_without_any_scores_there_are_none(corpus):
    batch = read(corpus, Step("a", 0, np.arange(4)))
    assert batch.scores is None
    assert batch.teacher is None
    scored = [place for place, row in enumerate(sorted(MIXED, key=lambda row: row["id"])) if row["positive_scores"]]
    others = np.setdiff1d(np.arange(30), scored)
    assert read(corpus, Step("c", 0, others)).teacher is None
    assert read(corpus, Step("c", 0, np.append(others, scored[0]))).teacher is not None


def test_all_positives_that_are_in_the_step_are_known(tmp_path):
    """One other positive is a passage of the step, one is a query of it, one is nowhere in it."""
    first, second, third = (example("d", number, 1, None, positives=1) for number in range(3))
    elsewhere, gone = second["positive_keys"][0], 12345
    first["positive_keys"] = [first["positive_keys"][0], elsewhere, third["query_key"], gone]
    first["positives"] = first["positives"] * 4
    data = {"d": TokenDataset([write_rows(tmp_path / "d.arrow", [first, second, third])])}
    written = sorted([first, second, third], key=lambda row: row["id"])
    for epoch in range(8):
        batch = read(data, Step("d", epoch, np.arange(3)))
        known = set(unsigned(batch.known_positives[written.index(first)]))
        chosen = unsigned(batch.candidate_keys[written.index(first)])[0]
        assert known == {elsewhere, third["query_key"], chosen}
        others = [set(unsigned(batch.known_positives[written.index(one)])) for one in (second, third)]
        assert others == [{elsewhere}, set(third["positive_keys"])]
