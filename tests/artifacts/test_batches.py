from __future__ import annotations

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import BatchReader
from boom_ray.artifacts.plan import Step
from boom_ray.artifacts.tokens import TokenDataset
from tests.token_corpus import write_tokens


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, TokenDataset]:
    folder = tmp_path_factory.mktemp("batches")
    return {
        "a": TokenDataset([write_tokens(folder / "a.arrow", "a", 20, negatives=5)]),
        "b": TokenDataset([write_tokens(folder / "b.arrow", "b", 20, negatives=0, labels=4)]),
    }


def read(corpus, step: Step, rank: int = 0, workers: int = 1, negatives: int = 3):
    return BatchReader(corpus, {"a": True, "b": False}, negatives, 7, rank, workers).read(step)


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
    assert not batch.in_batch
    assert len(set(batch.labels.tolist())) <= 4
    assert read(corpus, Step("a", 0, np.arange(2))).labels is None


def test_equal_texts_are_encoded_once(corpus):
    batch = read(corpus, Step("a", 0, np.array([2, 2, 2])))
    assert len(batch.texts) == 5  # a query, a positive, three negatives
    assert torch.equal(batch.index[0], batch.index[1])
