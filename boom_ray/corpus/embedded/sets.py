"""The training datasets and test sets that the embedded text gives, and who may be in which.

A function is trained on or held out as a whole, by a keyed hash of its id. Rows that nearly repeat an earlier one are
gone before that, so that no test row has a near-duplicate in training, in domain or out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from boom_ray.config.corpus import EmbeddedConfig
from boom_ray.corpus.embedded import forms, rows
from boom_ray.corpus.embedded.choose import collapse, shares, shuffled
from boom_ray.corpus.embedded.forms import Files, Row
from boom_ray.corpus.embedded.parse import Function, Note, Record, package_of
from boom_ray.corpus.embedded.rows import Labelled, Pair

HELD_OUT = 0.25  # share of the functions of the packages trained on that only tests see
CANDIDATES = 7  # wrong passages per reranking query
CLASSES, TOPICS = 8, 10  # labels of a classification and of a clustering test
TRAINED_LABELS = 3  # times as many labels are trained on as are tested
PROBE = 16  # texts per label that train the linear probe of a classification test
FEWEST = 5  # texts a label needs in the test set
T = TypeVar("T", bound=Pair | Labelled)


@dataclass(frozen=True)
class Sets:
    """Everything the artifact holds.

    Attributes:
        train: name of a training dataset to its rows.
        tests: name of a test set to its files, by relative path.
    """

    train: dict[str, list[Row]]
    tests: dict[str, Files]


@dataclass(frozen=True)
class _Parts(Generic[T]):
    """Rows of one kind: trained on, held out of the same packages, and of the packages never trained on."""

    train: list[T]
    held_out: list[T]
    outside: list[T]


def make_sets(inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> Sets:
    """All sets from the records of the packages trained on (``inside``) and of the others; some may be empty."""
    sets = Sets({}, {})
    _add_retrieval(sets, inside, outside, config)
    _add_labelled(sets, inside, outside, config)
    _add_unseen_tasks(sets, inside, outside, config)
    return sets


def _add_retrieval(sets: Sets, inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> None:
    makers: dict[str, Callable[[Sequence[Record]], list[Pair]]] = {
        "docs": lambda records: rows.doc_pairs(_functions(records), config.max_characters),
        "code": lambda records: rows.code_pairs(_functions(records), config.max_characters),
        "comments": lambda records: rows.comment_pairs(_notes(records), config.max_characters),
    }
    for name, make in makers.items():
        parts = _split(make(inside), make(outside), config.seed)
        chosen = parts.train[: config.train_examples]
        sets.train[name] = forms.retrieval_rows(chosen, config.negatives, config.seed)
        sets.tests[name] = forms.retrieval_test(parts.held_out, config.test_queries, config.test_corpus)
        if name == "docs":
            sets.tests["new-docs"] = forms.retrieval_test(parts.outside, config.test_queries, config.test_corpus)
        if name == "code":
            sets.tests["code-reranking"] = forms.reranking_test(
                parts.outside, config.test_queries // 2, CANDIDATES, config.seed
            )


def _add_labelled(sets: Sets, inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> None:
    limit = config.max_characters
    errors = _split(rows.error_labels(_notes(inside), limit), rows.error_labels(_notes(outside), limit), config.seed)
    topics = _split(
        rows.topic_labels(_functions(inside), limit), rows.topic_labels(_functions(outside), limit), config.seed
    )
    parameters = _split(rows.parameter_labels(_functions(inside), limit), [], config.seed)
    probe = _add_train_and_test(sets, "errors", errors, CLASSES, config, probe=PROBE)
    sets.tests["errors"]["train.jsonl"] = forms.labelled_rows(probe)
    _add_train_and_test(sets, "topics", topics, TOPICS, config)
    _add_train_and_test(sets, "parameters", parameters, TOPICS, config)
    sets.tests["new-errors"] = _new_classification(errors.outside, config)
    new = forms.balanced(topics.outside, TOPICS, FEWEST, _per_label(TOPICS, config))
    sets.tests["new-topics"] = {"test.jsonl": forms.labelled_rows(new)}


def _add_train_and_test(
    sets: Sets, name: str, parts: _Parts[Labelled], labels: int, config: EmbeddedConfig, probe: int = 0
) -> list[Labelled]:
    """Add a labelled dataset and its test set, whose labels are some of those trained on.

    The first ``probe`` texts of each label tested are kept out of training and returned.
    """
    most = TRAINED_LABELS * labels
    known = {row.label for row in forms.balanced(parts.train, most, probe + FEWEST, 1)}
    held_out = [row for row in parts.held_out if row.label in known]
    test = forms.balanced(held_out, labels, FEWEST, _per_label(labels, config))
    tested = {row.label for row in test}
    reserved = forms.balanced([row for row in parts.train if row.label in tested], labels, 1, probe) if probe else []
    kept_out = set(reserved)
    train = [row for row in parts.train if row.label in known and row not in kept_out]
    chosen = forms.balanced(train, most, 1, max(1, config.train_examples // labels))
    sets.train[name] = forms.labelled_rows(chosen[: config.train_examples])
    sets.tests[name] = {"test.jsonl": forms.labelled_rows(test)}
    return reserved


def _per_label(labels: int, config: EmbeddedConfig) -> int:
    """Texts per label of a test set, which has twice as many texts as a retrieval test has queries."""
    return max(FEWEST, 2 * config.test_queries // labels)


def _new_classification(found: Sequence[Labelled], config: EmbeddedConfig) -> Files:
    """A classification test of packages never trained on; probe and test are of different functions."""
    places = shares([row.owner for row in found], config.seed, "probe")
    later = [row for row, place in zip(found, places, strict=True) if place >= 0.4]
    test = forms.balanced(later, CLASSES, FEWEST, _per_label(CLASSES, config))
    known = {row.label for row in test}
    early = [row for row, place in zip(found, places, strict=True) if place < 0.4 and row.label in known]
    probe = forms.balanced(early, CLASSES, 1, PROBE)
    return {"train.jsonl": forms.labelled_rows(probe), "test.jsonl": forms.labelled_rows(test)}


def _add_unseen_tasks(sets: Sets, inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> None:
    """Task types that nothing is trained on: pairs and graded similarity of sentences."""
    limit = config.max_characters
    found = _split(
        rows.sentence_pairs(_functions(inside), limit), rows.sentence_pairs(_functions(outside), limit), config.seed
    ).outside
    middle = len(found) // 2
    sets.tests["sentence-pairs"] = forms.pair_test(found[:middle], 2 * config.test_queries, config.seed)
    sets.tests["relatedness"] = forms.sts_test(found[middle:], 2 * config.test_queries, config.seed)


def _split(inside: Sequence[T], outside: Sequence[T], seed: int) -> _Parts[T]:
    """Rows in hashed order without near-duplicates, those of ``inside`` first, divided by function."""
    ordered = [*shuffled(inside, _name, seed, "order"), *shuffled(outside, _name, seed, "order")]
    packages = {package_of(row.owner) for row in inside}
    kept = collapse(ordered, _texts)
    places = shares([row.owner for row in kept], seed, "held-out")
    parts: _Parts[T] = _Parts([], [], [])
    for row, place in zip(kept, places, strict=True):
        if package_of(row.owner) not in packages:
            parts.outside.append(row)
        else:
            (parts.held_out if place < HELD_OUT else parts.train).append(row)
    return parts


def _name(row: Pair | Labelled) -> str:
    return forms.pair_name(row) if isinstance(row, Pair) else forms.label_name(row)


def _texts(row: Pair | Labelled) -> tuple[str, ...]:
    return (row.query, row.positive) if isinstance(row, Pair) else (row.text,)


def _functions(records: Sequence[Record]) -> list[Function]:
    return [record for record in records if isinstance(record, Function)]


def _notes(records: Sequence[Record]) -> list[Note]:
    return [record for record in records if isinstance(record, Note)]
