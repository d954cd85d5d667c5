from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from boom_ray.evaluation import sharing
from boom_ray.evaluation.embedder import BLOCK_CHARACTERS, BLOCK_TEXTS, blocks
from boom_ray.evaluation.scores import Manner, ModelRef
from boom_ray.evaluation.sharing import Board, Sharer, help_others

MODEL = ModelRef("m", "/m", "f", "p")
MANNER = Manner("p: ", "query")
TEXTS = [[f"{block}-{place}" for place in range(3)] for block in range(12)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(sharing, "POLL_S", 0.001)


def caller(board: Board):
    """Calls one after the other, as an actor does."""
    lock = threading.Lock()

    def call(method: str, *arguments):
        with lock:
            return getattr(board, method)(*arguments)

    return call


def vectors(texts, manner: Manner) -> np.ndarray:
    return np.array([[hash((manner, text)) % 1000, 1.0] for text in texts], dtype=np.float32)


def expected() -> list[list[list[float]]]:
    return [vectors(texts, MANNER).tolist() for texts in TEXTS]


def test_alone_everything_is_computed_here():
    board = Board()
    found = Sharer(caller(board), MODEL).run(TEXTS, MANNER, vectors)
    assert [one.tolist() for one in found] == expected()
    assert board.blocks == {}


def test_helpers_take_their_share_and_the_order_stays():
    board, ended, helped = Board(), threading.Event(), []
    call = caller(board)

    def slowly(texts, manner: Manner) -> np.ndarray:
        time.sleep(0.02)
        return vectors(texts, manner)

    def embed(model: ModelRef, texts, manner: Manner) -> np.ndarray:
        assert model == MODEL
        helped.append(list(texts))
        return slowly(texts, manner)

    helpers = [threading.Thread(target=help_others, args=(call, embed, ended.is_set)) for _ in range(2)]
    for helper in helpers:
        helper.start()
    try:
        found = Sharer(call, MODEL).run(TEXTS, MANNER, slowly)
    finally:
        ended.set()
        for helper in helpers:
            helper.join(10)
    assert [one.tolist() for one in found] == expected()
    assert 0 < len(helped) < len(TEXTS)
    assert board.blocks == {}


def test_a_helper_that_dies_with_a_block_costs_time_only():
    board = Board()
    call = caller(board)
    own = iter(range(100))

    def computing(texts, manner: Manner) -> np.ndarray:
        if next(own) == 0:
            assert call("take", None, None) is not None  # a helper takes one, and is never heard of again
        return vectors(texts, manner)

    found = Sharer(call, MODEL).run(TEXTS, MANNER, computing)
    assert [one.tolist() for one in found] == expected()


def test_what_a_helper_cannot_compute_is_left_to_who_posted_it():
    board = Board()
    call = caller(board)
    numbers = call("post", MODEL, MANNER, TEXTS)
    asked = []

    def broken(model: ModelRef, texts, manner: Manner) -> np.ndarray:
        asked.append(texts)
        raise ValueError("no such model here")

    help_others(call, broken, lambda: True)
    assert asked == TEXTS  # each once, and the helper lives on
    assert call("take", None) is None
    assert call("take", numbers)[0] == numbers[0]


def test_an_error_of_ones_own_leaves_nothing_on_the_board():
    board = Board()

    def broken(texts, manner: Manner) -> np.ndarray:
        raise ValueError("NaN")

    with pytest.raises(ValueError, match="NaN"):
        Sharer(caller(board), MODEL).run(TEXTS, MANNER, broken)
    assert board.blocks == {}


@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_a_board_that_goes_costs_its_help_only(calls):
    """Before anything is posted, before the first block, while blocks are computed."""
    call, left = caller(Board()), iter(range(calls))

    def going(method: str, *arguments: object) -> object:
        if next(left, None) is None:
            raise RuntimeError("the actor died")
        return call(method, *arguments)

    found = Sharer(going, MODEL).run(TEXTS, MANNER, vectors)
    assert [one.tolist() for one in found] == expected()


def test_helpers_prefer_the_model_they_have():
    board, other = Board(), ModelRef("n", "/n", "f", "p")
    board.post(MODEL, MANNER, TEXTS[:2])
    board.post(other, MANNER, TEXTS[2:4])
    taken = board.take(None, "/n")
    assert taken is not None and taken[1].model == other
    assert board.take(None, "/elsewhere")[1].model == MODEL


def test_taking_of_many_blocks_looks_at_each_number_once():
    class Numbers(list[int]):
        """Counts how often it is walked or searched."""

        walks = 0

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

        def __contains__(self, number: object) -> bool:
            self.walks += 1
            return super().__contains__(number)

    board = Board()
    board.post(MODEL, MANNER, [["of others"]])
    wanted = Numbers(board.post(MODEL, MANNER, [[str(number)] for number in range(50)]))
    taken = [board.take(wanted) for _ in range(51)]
    assert [one[1].texts[0] if one else None for one in taken] == [*map(str, range(50)), None]
    assert wanted.walks == 51


def test_blocks_hold_all_texts_longest_first_within_their_limits():
    texts = ["x" * size for size in (1, 300_000, 5, 200_000, 70_000, 0)] + ["ab"] * (BLOCK_TEXTS + 1)
    found = blocks(texts)
    assert sorted(place for block in found for place in block) == list(range(len(texts)))
    lengths = [len(texts[place]) for block in found for place in block]
    assert lengths == sorted(lengths, reverse=True)
    for block in found:
        assert len(block) == 1 or sum(len(texts[place]) for place in block) <= BLOCK_CHARACTERS
        assert len(block) <= BLOCK_TEXTS
    assert found[0] == [1]
