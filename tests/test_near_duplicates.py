from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.config import NearDuplicatesConfig
from boom_ray.near_duplicates import MISSED, PERMUTATIONS, NearIndex, band_sizes, shingles, similarity

DEFAULT = NearDuplicatesConfig()
PASSAGE = (
    "The museum opened a new wing last spring, which holds four hundred paintings that had not been shown to the "
    "public for decades; visitors can see them every day except on Mondays."
)
QUESTION = "how can i reset the password of my online banking account"


def pairs(index: NearIndex, texts: list[str]) -> list[tuple[int, int]]:
    found = index.find(texts)
    return list(zip(found.asked.tolist(), found.held.tolist(), strict=True))


def sentence(rng: random.Random, words: int) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 8))) for _ in range(words))


def test_case_punctuation_and_space_do_not_count():
    assert shingles("Ab-cd,\n EFG!", 5) == {"ab cd", "b cd ", " cd e", "cd ef", "d efg"}
    assert shingles("ﬁve Ｗｏｒｄｓ", 5) == shingles("FIVE words", 5)
    assert shingles("?! ... --", 5) == frozenset()


def test_short_texts_have_no_shingles():
    assert shingles("what is ai, please?", 20) == frozenset()  # 17 characters without punctuation
    assert len(shingles("what is ai, go, please?", 20)) == 16
    index = NearIndex.of(["what is ai"], DEFAULT)
    assert len(index.find(["what is ai", "what is it"])) == 0


@pytest.mark.parametrize(
    "changed",
    [
        PASSAGE.replace("decades", "centuries"),
        PASSAGE.replace(",", "").replace(";", " -") + "!",
        PASSAGE.upper(),
        PASSAGE.partition(" which")[2] + " The museum opened a new wing last spring, which",
        "News: " + PASSAGE,
    ],
    ids=["one word", "punctuation", "case", "reordered", "prefix"],
)
def test_edits_of_a_passage_are_near(changed):
    assert pairs(NearIndex.of([QUESTION, PASSAGE], DEFAULT), [changed]) == [(0, 1)]


def test_other_texts_are_not():
    others = [
        "The gallery shows some paintings every day, but it is closed on Mondays and for most of the spring.",
        "how can i open an online banking account",
        "",
    ]
    assert len(NearIndex.of([QUESTION, PASSAGE], DEFAULT).find(others)) == 0


def test_the_threshold_is_the_least_similarity_and_values_are_exact():
    other = "how can i reset the password of my mobile banking account"
    value = similarity(shingles(QUESTION, 20), shingles(other, 20))
    assert 0.6 < value < 0.75
    for threshold, expected in ((value, 1), (value + 1e-3, 0), (0.5, 1), (1.0, 0)):
        found = NearIndex.of([QUESTION], NearDuplicatesConfig(threshold=threshold)).find([other])
        assert len(found) == expected
        assert found.similarity.tolist() == [value] * expected


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_miss_next_to_nothing_and_are_as_selective_as_can_be(threshold):
    bands, rows = band_sizes(threshold)
    assert bands * rows <= PERMUTATIONS
    assert (1 - threshold**rows) ** bands <= MISSED
    if rows < PERMUTATIONS:
        assert (1 - threshold ** (rows + 1)) ** (PERMUTATIONS // (rows + 1)) > MISSED


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8), st.sampled_from([0.5, 0.8, 1.0]))
def test_a_text_matches_itself_and_similarity_is_symmetric(texts, threshold):
    index = NearIndex.of(texts, NearDuplicatesConfig(threshold=threshold, min_characters=5))
    found = index.find(texts)
    both = set(zip(found.asked.tolist(), found.held.tolist(), strict=True))
    assert {(place, place) for place, text in enumerate(texts) if shingles(text, 5)} <= both
    assert {(held, asked) for asked, held in both} == both


def test_finds_what_comparing_all_pairs_finds():
    rng = random.Random(0)
    held = [sentence(rng, rng.randint(6, 40)) for _ in range(150)]
    asked = [sentence(rng, 12) for _ in range(50)]
    for text in rng.sample(held, 120):
        words = text.split()
        for _ in range(rng.randint(0, 4)):
            words[rng.randrange(len(words))] = sentence(rng, 1)
        asked.append(" ".join(words))
    sets = [[shingles(text, 20) for text in texts] for texts in (asked, held)]
    expected = [(a, h) for a, one in enumerate(sets[0]) for h, two in enumerate(sets[1]) if similarity(one, two) >= 0.8]
    assert 30 < len(expected) < 120
    index = NearIndex.of(held, DEFAULT)
    assert pairs(index, asked) == expected
    apart = [(at, h) for at in range(len(asked)) for _, h in pairs(index, [asked[at]])]
    assert apart == expected, "how texts are divided must not matter"


def test_nothing_held_and_nothing_asked():
    assert len(NearIndex.of([], DEFAULT).find([PASSAGE])) == 0
    found = NearIndex.of([PASSAGE], DEFAULT).find([])
    assert (len(found), found.asked.dtype, found.similarity.dtype) == (0, np.int64, np.float64)
