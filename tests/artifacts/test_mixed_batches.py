"""Batches of steps of several datasets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boom_ray.artifacts.batches import MIXED, Batch, BatchReader
from boom_ray.artifacts.plan import Step
from boom_ray.artifacts.tokens import TokenDataset
from tests.token_corpus import example, write_rows, write_tokens

GRADED = [example("g", number, 3, None, scored=True) for number in range(0, 40, 2)]  # all with a teacher
PARTS = (
    Step("a", 1, np.array([3, 1, 4])),
    Step("b", 0, np.array([0, 5, 6, 7])),
    Step("g", 2, np.array([2, 9])),
    Step("l", 0, np.array([1, 2, 3])),
)
COUNTS = [3, 4, 2, 3]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, TokenDataset]:
    folder = tmp_path_factory.mktemp("mixed")
    return {
        "a": TokenDataset([write_tokens(folder / "a.arrow", "a", 20, negatives=5)]),
        "b": TokenDataset([write_tokens(folder / "b.arrow", "b", 20, negatives=1, labels=2)]),
        "l": TokenDataset([write_tokens(folder / "l.arrow", "l", 20, negatives=1, labels=2)]),
        "g": TokenDataset([write_rows(folder / "g.arrow", GRADED)]),
    }


def reader(corpus, rank: int = 0, workers: int = 1) -> BatchReader:
    return BatchReader(corpus, 3, 7, rank, workers, without_negatives={"g"})


def texts(batch: Batch, row: int) -> list[list[int]]:
    there = [True, *batch.present[row].tolist()]
    return [batch.texts[place].tolist() for place, seen in zip(batch.index[row].tolist(), there, strict=True) if seen]


def test_rows_are_those_of_the_parts_read_alone(corpus):
    batch = reader(corpus).read(*PARTS)
    assert (batch.dataset, batch.size) == (MIXED, 12)
    assert batch.parts == (("a", 3), ("b", 4), ("g", 2), ("l", 3))
    start = 0
    for step, count in zip(PARTS, COUNTS, strict=True):
        alone = reader(corpus).read(step)
        assert alone.parts == ((step.dataset, count),)
        for row in range(count):
            assert texts(batch, start + row) == texts(alone, row)
            width = alone.candidate_keys.shape[1]
            assert torch.equal(batch.candidate_keys[start + row, :width], alone.candidate_keys[row])
            assert not batch.present[start + row, width:].any()
        assert torch.equal(batch.query_keys[start : start + count], alone.query_keys)
        assert batch.ids[start : start + count].tolist() == alone.ids.tolist()
        start += count


def test_scores_are_kept_and_others_have_none(corpus):
    batch, alone = reader(corpus).read(*PARTS), reader(corpus).read(PARTS[2])
    assert batch.scores[:7].isnan().all() and batch.scores[9:].isnan().all()
    assert torch.equal(batch.scores[7:9], alone.scores)
    assert batch.teacher.shape == batch.present.shape
    assert batch.teacher[:7].masked_select(batch.present[:7]).isnan().all()


def test_labels_are_those_of_a_dataset(corpus):
    """Both ``b`` and ``l`` have labels l0 and l1; an unlabelled example is like no other."""
    labels = reader(corpus).read(*PARTS).labels
    alone = {step.dataset: reader(corpus).read(step).labels for step in PARTS}
    assert set(alone["b"].tolist()) & set(alone["l"].tolist())
    same = labels[:, None] == labels
    starts = dict(zip("abgl", [0, 3, 7, 9], strict=True))
    expected = torch.eye(12, dtype=torch.bool)
    for name in "bl":
        part = slice(starts[name], starts[name] + len(alone[name]))
        expected[part, part] = alone[name][:, None] == alone[name]
    assert torch.equal(same, expected)
    assert reader(corpus).read(PARTS[0], PARTS[2]).labels is None


def test_ranks_share_the_step_whatever_its_parts(corpus):
    whole = reader(corpus).read(*PARTS)
    for workers in (2, 5, 16):
        parts = [reader(corpus, rank, workers).read(*PARTS) for rank in range(workers)]
        assert all(part.mixture == whole.mixture and part.size == 12 for part in parts)
        assert all(torch.equal(part.candidate_keys, whole.candidate_keys) for part in parts)
        assert {part.index.shape[1] for part in parts} == {whole.index.shape[1]}  # what workers gather is of one shape
        joined = [part.texts[place].tolist() for part in parts for place in part.index.reshape(-1).tolist()]
        assert joined == [whole.texts[place].tolist() for place in whole.index.reshape(-1).tolist()]


def test_a_positive_in_another_part_is_known(tmp_path):
    one, other = example("x", 1, 1, None), example("y", 2, 1, None)
    one["positive_keys"] = [*one["positive_keys"], other["positive_keys"][0]]
    one["positives"] = one["positives"] * 2
    data = {
        name: TokenDataset([write_rows(tmp_path / f"{name}.arrow", [row])]) for name, row in (("x", one), ("y", other))
    }
    rows = np.array([0])
    batch = BatchReader(data, 1, 0, 0, 1).read(Step("x", 0, rows), Step("y", 0, rows))
    elsewhere = np.array([other["positive_keys"][0]], dtype=np.uint64).view(np.int64)[0]
    assert elsewhere in batch.known_positives[0].tolist()
    assert batch.known_positives[1].unique().tolist() == [elsewhere]


def test_a_graded_dataset_is_read_as_with_no_negatives_at_all(corpus):
    step = PARTS[2]
    bare, none = reader(corpus).read(step), BatchReader(corpus, 0, 7, 0, 1).read(step)
    assert vars(none).keys() == vars(bare).keys()
    for name, value in vars(none).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(bare, name), value, rtol=0, atol=0, equal_nan=True)
    assert [one.tolist() for one in bare.texts] == [one.tolist() for one in none.texts]
