"""Sets to choose by: as large as those that are reported, and apart from them and from training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from boom_ray.config import EmbeddedConfig
from boom_ray.corpus.embedded import rows
from boom_ray.corpus.embedded.choose import SHARED, SKETCH, shares, sketch
from boom_ray.corpus.embedded.forms import Row
from boom_ray.corpus.embedded.parse import Function, Record, parse_source
from boom_ray.corpus.embedded.parts import HELD_OUT
from boom_ray.corpus.embedded.sets import Sets, make_sets
from tests.corpus.embedded.conftest import function

pytestmark = pytest.mark.slow

CONFIG = EmbeddedConfig(train_examples=100, test_queries=20, test_corpus=40)
DEV = ["dev-code", "dev-comments", "dev-docs", "dev-errors", "dev-new-docs", "dev-new-errors", "dev-new-topics"]
DEV += ["dev-parameters", "dev-topics"]


def records(package: str) -> list[Record]:
    found: list[Record] = []
    for module in range(6):
        source = "\n".join(function(f"{package}_part{module}_job{index}") for index in range(90))
        found += parse_source(source, f"{package}.part{module}")
    return found


@pytest.fixture(scope="module")
def known() -> tuple[list[Record], list[Record]]:
    return [*records("alpha"), *records("beta")], records("gamma")


@pytest.fixture(scope="module")
def sets(known: tuple[list[Record], list[Record]]) -> Sets:
    return make_sets(*known, CONFIG)


def texts(found: Iterable[Row]) -> Iterator[str]:
    for row in found:
        for field in ("query", "pos", "neg", "text", "sentence1", "sentence2", "positive", "negative"):
            value: Any = row.get(field, [])
            yield from value if isinstance(value, list) else [value]


def of(sets: Sets, *, dev: bool) -> set[str]:
    chosen = [files for name, files in sets.tests.items() if name.startswith("dev-") is dev]
    found = {text for files in chosen for file in files.values() for text in texts(file)}
    return found if dev else found | {text for dataset in sets.train.values() for text in texts(dataset)}


def owners(known: tuple[list[Record], list[Record]], wanted: set[str]) -> set[str]:
    """The functions that texts come from, found by making all rows of all functions."""
    found: set[str] = set()
    for group in known:
        functions = [one for one in group if isinstance(one, Function)]
        notes = [one for one in group if not isinstance(one, Function)]
        limit = CONFIG.max_characters
        pairs = [*rows.doc_pairs(functions, limit), *rows.code_pairs(functions, limit)]
        pairs += [*rows.comment_pairs(notes, limit), *rows.sentence_pairs(functions, limit)]
        labelled = [*rows.error_labels(notes, limit), *rows.topic_labels(functions, limit)]
        labelled += rows.parameter_labels(functions, limit)
        found |= {pair.owner for pair in pairs if {pair.query, pair.positive} & wanted}
        found |= {row.owner for row in labelled if row.text in wanted}
    return found


def test_they_are_as_large_as_the_sets_that_are_reported(sets):
    assert sorted(name for name in sets.tests if name.startswith("dev-")) == DEV
    for name in ("docs", "code", "comments", "new-docs"):
        sizes = {file: len(found) for file, found in sets.tests[name].items()}
        assert sizes == {"corpus.jsonl": 40, "queries.jsonl": 20, "qrels/test.tsv": 20}
        assert {file: len(found) for file, found in sets.tests[f"dev-{name}"].items()} == sizes
    for name in ("errors", "topics", "parameters", "new-errors", "new-topics"):
        assert len(sets.tests[f"dev-{name}"]["test.jsonl"]) == len(sets.tests[name]["test.jsonl"])


def test_no_function_is_in_them_and_in_another_file(sets, known):
    dev, others = owners(known, of(sets, dev=True)), owners(known, of(sets, dev=False))
    assert len(dev) > 100
    assert len(others) > 300
    assert not dev & others


def test_no_text_is_nearly_one_of_another_file(sets):
    marks = [frozenset(sketch(text)) for text in of(sets, dev=False)]
    for text in of(sets, dev=True):
        own = frozenset(sketch(text))
        assert all(len(own & other) * SKETCH < SHARED * max(len(own), len(other)) for other in marks), text


def test_packages_stay_apart_and_retrieval_is_of_held_out_functions(sets, known):
    for name in DEV:
        found = {text for file in sets.tests[name].values() for text in texts(file)}
        here = owners(known, found)
        assert {owner.split(".")[0] for owner in here} == ({"gamma"} if "-new-" in name else {"alpha", "beta"})
        if name in {"dev-docs", "dev-code", "dev-comments", "dev-topics"}:
            assert (shares(sorted(here), CONFIG.seed, "held-out") < HELD_OUT).all()


def test_every_class_has_probe_texts(sets):
    for name in ("errors", "new-errors", "dev-errors", "dev-new-errors"):
        files = sets.tests[name]
        probed, tested = ({row["label_text"] for row in files[file]} for file in ("train.jsonl", "test.jsonl"))
        assert tested
        assert probed == tested


def test_without_text_for_them_the_others_stay_as_they_are():
    """Two functions per module: whatever there is goes to training and to what is reported."""
    few = [one for index in range(2) for one in parse_source(function(f"alpha_job{index}"), f"alpha.part{index}")]
    sets = make_sets(few, few[:0], CONFIG)
    assert not any(found for name in DEV for found in sets.tests[name].values())
    assert sum(map(len, sets.train.values())) > 0
