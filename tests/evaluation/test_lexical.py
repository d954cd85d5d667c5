from __future__ import annotations

import math

import numpy as np
import pytest

from boom_ray.evaluation.lexical import K1, B, Bm25, hardest, words


def test_words_of_code_and_of_writing_without_spaces() -> None:
    assert words("Get_file NAME-2, naïve") == ["get", "file", "name", "2", "naïve"]
    assert words("猫 cats東京") == ["猫", "cats", "東", "京"]


def test_bm25_by_hand() -> None:
    texts = ["cat cat dog", "dog", "", "bird bird bird bird"]
    mean = (3 + 1 + 0 + 4) / 4

    def one(df: int, count: int, length: int) -> float:
        idf = math.log(1 + (4 - df + 0.5) / (df + 0.5))
        return idf * count / (count + K1 * (1 - B + B * length / mean))

    found = Bm25(texts, ["Dog cat cat", "fish"])
    expected = [2 * one(1, 2, 3) + one(2, 1, 3), one(2, 1, 1), 0, 0]
    assert found.scores("Dog cat cat") == pytest.approx(expected, rel=1e-12)
    assert found.scores("fish").tolist() == [0, 0, 0, 0]


def test_neither_order_nor_other_queries_change_a_bit() -> None:
    texts = [" ".join("abcdefg"[n % 3 : n % 7 + 1]) for n in range(50)]
    query = "a b c d e f"
    first, second = Bm25(texts, [query]), Bm25(texts[::-1], ["g f", query, "b"])
    assert (first.scores(query) == second.scores(query)[::-1]).all()


def test_texts_without_words() -> None:
    assert Bm25(["", "..."], ["a"]).scores("a").tolist() == [0, 0]


def test_the_hardest_are_the_best_that_are_not_left_out_and_ties_fall_by_key() -> None:
    scores = np.array([0.0, 3.0, 1.0, 1.0, 1.0, 2.0])
    keys = np.array([0, 0, 9, 1, 5, 0], dtype=np.uint64)
    assert hardest(scores, keys, 3, [5]).tolist() == [1, 3, 4]
    assert hardest(scores, keys, 9).tolist() == [1, 5, 3, 4, 2]
    assert hardest(scores, keys, 0).tolist() == []
