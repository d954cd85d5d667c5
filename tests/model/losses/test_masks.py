from __future__ import annotations

import torch

from boom_ray.config.loss import MASKS
from boom_ray.model.losses.masks import hidden_own, hidden_passages, hidden_queries
from tests.model.losses.world import Texts

EVERYTHING = slice(None)

# query 0 has two positives; passage [1][1] is the other one; [2][1] is the text of query 1; [0][2] is absent
TEXTS = Texts(
    ["q0", "q1", "p0"],
    [["p0", "p0'"], ["p1"], ["p2"]],
    [["p0", "n", None], ["p1", "p0'", "n"], ["p2", "q1", "n"]],
    ["x", "y", "y"],
)


def places(hidden: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(place) for place in hidden.nonzero().tolist()}


def test_passages_by_kind():
    facts = TEXTS.facts()
    absent = {(row, 0, 2) for row in range(3)}
    own = {(row, row, 0) for row in range(3)}
    assert places(hidden_passages(facts, (), EVERYTHING)) == absent
    assert places(hidden_passages(facts, ("positives",), EVERYTHING)) == absent | own | {(0, 1, 1)}
    assert places(hidden_passages(facts, ("duplicates",), EVERYTHING)) == absent | {(1, 2, 1), (2, 0, 0)}
    assert places(hidden_passages(facts, ("labels",), EVERYTHING)) == absent | own | {(1, 2, 0), (2, 1, 0)}
    parts = [hidden_passages(facts, (kind,), EVERYTHING) for kind in MASKS]
    assert torch.equal(hidden_passages(facts, MASKS, EVERYTHING), torch.stack(parts).any(0))


def test_queries_by_kind():
    facts = TEXTS.facts()
    own = {(row, row) for row in range(3)}
    assert places(hidden_queries(facts, (), EVERYTHING)) == set()
    assert places(hidden_queries(facts, ("positives",), EVERYTHING)) - own == {(0, 2), (2, 0)}  # query 2 is passage 0
    assert places(hidden_queries(facts, ("duplicates",), EVERYTHING)) == own
    assert places(hidden_queries(facts, ("labels",), EVERYTHING)) == own | {(1, 2), (2, 1)}


def test_a_shared_positive_hides_the_query_from_the_other():
    texts = Texts(["a", "b", "c"], [["p"], ["p"], ["r"]], [["p"], ["p"], ["r"]])
    own = {(row, row) for row in range(3)}
    assert places(hidden_queries(texts.facts(), ("positives",), EVERYTHING)) == own | {(0, 1), (1, 0)}


def test_blocks_of_rows_are_rows_of_the_whole():
    facts = TEXTS.facts()
    for start in range(3):
        rows = slice(start, start + 1)
        for function in (hidden_passages, hidden_queries):
            assert torch.equal(function(facts, MASKS, rows), function(facts, MASKS, EVERYTHING)[rows])


def test_own_passages_are_the_diagonal():
    facts = TEXTS.facts()
    whole = hidden_passages(facts, ("positives", "duplicates"), EVERYTHING)
    diagonal = torch.stack([whole[row, row] for row in range(3)])
    assert torch.equal(hidden_own(facts, MASKS), diagonal)


def test_without_labels_nothing_has_the_same_label():
    texts = Texts(TEXTS.queries, TEXTS.known, TEXTS.passages)
    assert not hidden_queries(texts.facts(), ("labels",), EVERYTHING).any()
