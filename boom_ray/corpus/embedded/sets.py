"""The training datasets and test sets that the embedded text gives, and who may be in which.

A function is trained on or held out as a whole, by a keyed hash of its id. Rows that nearly repeat an earlier one are
gone before that, so that no test row has a near-duplicate in training, in domain or out of it. The sets to choose by
(``dev-*``) are of functions of which no other file has a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from boom_ray.config.corpus import EmbeddedConfig
from boom_ray.corpus.embedded import forms, rows
from boom_ray.corpus.embedded.forms import Files, Row
from boom_ray.corpus.embedded.parse import Function, Note, Record
from boom_ray.corpus.embedded.parts import Parts, Unused, split
from boom_ray.corpus.embedded.rows import Labelled, Pair

CANDIDATES = 7  # wrong passages per reranking query
CLASSES, TOPICS = 8, 10  # labels of a classification and of a clustering test
TRAINED_LABELS = 3  # times as many labels are trained on as are tested
PROBE = 16  # texts per label that train the linear probe of a classification test
FEWEST = 5  # texts a label needs in the test set


@dataclass(frozen=True)
class Sets:
    """Everything the artifact holds.

    Attributes:
        train: name of a training dataset to its rows.
        tests: name of a test set to its files, by relative path.
    """

    train: dict[str, list[Row]]
    tests: dict[str, Files]

    def rows(self) -> Iterator[Row]:
        """All rows of all files."""
        for dataset in self.train.values():
            yield from dataset
        for files in self.tests.values():
            for file in files.values():
                yield from file


@dataclass(frozen=True)
class _Kinds:
    """What sets are made of, divided by function.

    Attributes:
        pairs: ``docs``, ``code`` and ``comments``.
        labelled: ``errors``, ``topics`` and ``parameters``.
        sentences: two sentences of one docstring.
    """

    pairs: Mapping[str, Parts[Pair]]
    labelled: Mapping[str, Parts[Labelled]]
    sentences: Parts[Pair]

    def rows(self) -> Iterator[Pair | Labelled]:
        for pairs in (*self.pairs.values(), self.sentences):
            yield from pairs
        for labelled in self.labelled.values():
            yield from labelled


def make_sets(inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> Sets:
    """All sets from the records of the packages trained on (``inside``) and of the others; some may be empty."""
    sets = Sets({}, {})
    kinds = _kinds(inside, outside, config)
    _add_retrieval(sets, kinds.pairs, config)
    _add_labelled(sets, kinds.labelled, config)
    _add_unseen_tasks(sets, kinds.sentences.outside, config)
    sets.tests.update(_sets_to_choose_by(kinds, Unused(sets.rows(), kinds.rows()), config))
    return sets


def _kinds(inside: Sequence[Record], outside: Sequence[Record], config: EmbeddedConfig) -> _Kinds:
    limit, seed = config.max_characters, config.seed
    (here, notes), (there, new_notes) = _sorted_out(inside), _sorted_out(outside)
    return _Kinds(
        {
            "docs": split(rows.doc_pairs(here, limit), rows.doc_pairs(there, limit), seed),
            "code": split(rows.code_pairs(here, limit), rows.code_pairs(there, limit), seed),
            "comments": split(rows.comment_pairs(notes, limit), rows.comment_pairs(new_notes, limit), seed),
        },
        {
            "errors": split(rows.error_labels(notes, limit), rows.error_labels(new_notes, limit), seed),
            "topics": split(rows.topic_labels(here, limit), rows.topic_labels(there, limit), seed),
            "parameters": split(rows.parameter_labels(here, limit), [], seed),
        },
        split(rows.sentence_pairs(here, limit), rows.sentence_pairs(there, limit), seed),
    )


def _sorted_out(records: Sequence[Record]) -> tuple[list[Function], list[Note]]:
    functions = [record for record in records if isinstance(record, Function)]
    return functions, [record for record in records if isinstance(record, Note)]


def _add_retrieval(sets: Sets, kinds: Mapping[str, Parts[Pair]], config: EmbeddedConfig) -> None:
    for name, parts in kinds.items():
        chosen = parts.train[: config.train_examples]
        sets.train[name] = forms.retrieval_rows(chosen, config.negatives, config.seed)
        sets.tests[name] = _retrieval(parts.held_out, config)
        if name == "docs":
            sets.tests["new-docs"] = _retrieval(parts.outside, config)
        if name == "code":
            sets.tests["code-reranking"] = forms.reranking_test(
                parts.outside, config.test_queries // 2, CANDIDATES, config.seed
            )


def _add_labelled(sets: Sets, kinds: Mapping[str, Parts[Labelled]], config: EmbeddedConfig) -> None:
    probe = _add_train_and_test(sets, "errors", kinds["errors"], CLASSES, config, probe=PROBE)
    sets.tests["errors"]["train.jsonl"] = forms.labelled_rows(probe)
    _add_train_and_test(sets, "topics", kinds["topics"], TOPICS, config)
    _add_train_and_test(sets, "parameters", kinds["parameters"], TOPICS, config)
    sets.tests["new-errors"] = _classification(kinds["errors"].outside, config)
    sets.tests["new-topics"] = _clustering(kinds["topics"].outside, config)


def _add_train_and_test(
    sets: Sets, name: str, parts: Parts[Labelled], labels: int, config: EmbeddedConfig, probe: int = 0
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


def _add_unseen_tasks(sets: Sets, found: Sequence[Pair], config: EmbeddedConfig) -> None:
    """Task types that nothing is trained on: pairs and graded similarity of sentences."""
    middle = len(found) // 2
    sets.tests["sentence-pairs"] = forms.pair_test(found[:middle], 2 * config.test_queries, config.seed)
    sets.tests["relatedness"] = forms.sts_test(found[middle:], 2 * config.test_queries, config.seed)


def _sets_to_choose_by(kinds: _Kinds, unused: Unused, config: EmbeddedConfig) -> dict[str, Files]:
    """Test sets for sweeps, as large as those that are reported where there is text enough.

    Messages and parameters of held-out functions are too few for a second set of theirs; functions that might have
    been trained on, and were not, join them.
    """
    pairs, labelled = kinds.pairs, kinds.labelled
    errors, topics, parameters = labelled["errors"], labelled["topics"], labelled["parameters"]
    return {
        **{f"dev-{name}": _retrieval(unused.of(parts.held_out), config) for name, parts in pairs.items()},
        "dev-errors": _classification(unused.of([*errors.held_out, *errors.train]), config),
        "dev-topics": _clustering(unused.of(topics.held_out), config),
        "dev-parameters": _clustering(unused.of([*parameters.held_out, *parameters.train]), config),
        "dev-new-docs": _retrieval(unused.of(pairs["docs"].outside), config),
        "dev-new-errors": _classification(unused.of(errors.outside), config),
        "dev-new-topics": _clustering(unused.of(topics.outside), config),
    }


def _retrieval(found: Sequence[Pair], config: EmbeddedConfig) -> Files:
    return forms.retrieval_test(found, config.test_queries, config.test_corpus)


def _classification(found: Sequence[Labelled], config: EmbeddedConfig) -> Files:
    return forms.classification_test(found, CLASSES, FEWEST, _per_label(CLASSES, config), PROBE, config.seed)


def _clustering(found: Sequence[Labelled], config: EmbeddedConfig) -> Files:
    return {"test.jsonl": forms.labelled_rows(forms.balanced(found, TOPICS, FEWEST, _per_label(TOPICS, config)))}


def _per_label(labels: int, config: EmbeddedConfig) -> int:
    """Texts per label of a test set, which has twice as many texts as a retrieval test has queries."""
    return max(FEWEST, 2 * config.test_queries // labels)
