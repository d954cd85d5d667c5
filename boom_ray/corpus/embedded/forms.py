"""Chosen rows to the files of a training dataset or a test set.

The layouts are the project's usual ones: FlagEmbedding's JSON lines and (text, label) for training, BEIR folders and
one ``test.jsonl`` for tests.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boom_ray.corpus.embedded.choose import ranks, shares, shuffled, spread
from boom_ray.corpus.embedded.rows import Labelled, Pair

Row = dict[str, Any]
Files = dict[str, list[Row]]
PROBE_SHARE = 0.4  # of the functions of a classification test


def siblings(pairs: Sequence[Pair], pool: Sequence[Pair], most: int, seed: int) -> list[list[str]]:
    """Positives of other functions of the same module, for each pair: its hard negatives.

    Args:
        pairs: the pairs that need negatives.
        pool: where they are taken from.
        most: negatives per pair; a small module gives fewer, down to none.
        seed: seed of the keyed hash that chooses.
    """
    modules: dict[str, list[Pair]] = defaultdict(list)
    for other in shuffled(pool, pair_name, seed, "siblings"):
        modules[other.module].append(other)
    result = []
    for pair, start in zip(pairs, ranks([pair_name(pair) for pair in pairs], seed, "negatives").tolist(), strict=True):
        others = [other.positive for other in modules[pair.module] if other.owner != pair.owner]
        turn = start % len(others) if others else 0
        distinct = dict.fromkeys(others[turn:] + others[:turn])
        distinct.pop(pair.positive, None)
        result.append(list(distinct)[:most])
    return result


def pair_name(pair: Pair) -> str:
    """The id of a pair."""
    return f"{pair.owner}\t{pair.query}"


def label_name(row: Labelled) -> str:
    """The id of a labelled text."""
    return f"{row.owner}\t{row.text}"


def retrieval_rows(pairs: Sequence[Pair], negatives: int, seed: int) -> list[Row]:
    """Training rows with hard negatives from the same module."""
    hard = siblings(pairs, pairs, negatives, seed)
    return [{"query": pair.query, "pos": [pair.positive], "neg": neg} for pair, neg in zip(pairs, hard, strict=True)]


def labelled_rows(rows: Sequence[Labelled]) -> list[Row]:
    """Rows of text, label number and label name; numbers follow the order of the names."""
    numbers = {name: number for number, name in enumerate(sorted({row.label for row in rows}))}
    return [{"text": row.text, "label": numbers[row.label], "label_text": row.label} for row in rows]


def retrieval_test(pairs: Sequence[Pair], queries: int, passages: int) -> Files:
    """BEIR folder: the first pairs give queries and answers, the corpus is filled with their modules' other passages.

    Neighbours come first, because a passage about something else is no distraction.
    """
    asked = list(pairs[:queries])
    modules = {pair.module for pair in asked}
    rest = pairs[queries:]
    near = spread([pair for pair in rest if pair.module in modules], lambda pair: pair.module, 4)
    chosen = {id(pair) for pair in near}
    fill = [*near, *(pair for pair in rest if id(pair) not in chosen)]
    corpus = [*asked, *fill[: max(0, passages - len(asked))]]
    ids = {id(pair): f"p{index}" for index, pair in enumerate(corpus)}
    return {
        "corpus.jsonl": [{"_id": ids[id(pair)], "title": "", "text": pair.positive} for pair in corpus],
        "queries.jsonl": [{"_id": f"q{index}", "text": pair.query} for index, pair in enumerate(asked)],
        "qrels/test.tsv": [
            {"query-id": f"q{index}", "corpus-id": ids[id(pair)], "score": 1} for index, pair in enumerate(asked)
        ],
    }


def reranking_test(pairs: Sequence[Pair], queries: int, candidates: int, seed: int) -> Files:
    """Each query with its answer and passages of the same module; modules that have too few are left out."""
    rows: list[Row] = []
    for pair, negative in zip(pairs, siblings(pairs, pairs, candidates, seed), strict=True):
        if len(negative) == candidates and len(rows) < queries:
            rows.append({"query": pair.query, "positive": [pair.positive], "negative": negative})
    return {"test.jsonl": rows}


def classification_test(rows: Sequence[Labelled], labels: int, least: int, most: int, probe: int, seed: int) -> Files:
    """A classification test whose probe and test are of different functions, two fifths and three.

    Args:
        rows: in the order of preference.
        labels: most labels, the most frequent ones in the test.
        least: fewest texts of a label in the test.
        most: most texts of a label in the test.
        probe: most texts of a label in the probe.
        seed: seed of the keyed hash that divides functions.
    """
    places = shares([row.owner for row in rows], seed, "probe")
    early = [row for row, place in zip(rows, places, strict=True) if place < PROBE_SHARE]
    known = {row.label for row in early}
    later = [row for row, place in zip(rows, places, strict=True) if place >= PROBE_SHARE and row.label in known]
    test = balanced(later, labels, least, most)
    tested = {row.label for row in test}
    chosen = balanced([row for row in early if row.label in tested], labels, 1, probe)
    return {"train.jsonl": labelled_rows(chosen), "test.jsonl": labelled_rows(test)}


def pair_test(pairs: Sequence[Pair], rows: int, seed: int) -> Files:
    """Two texts of one function (score 1) or of two functions of one module (score 0), half of each."""
    result: list[Row] = []
    for pair, negative in zip(pairs, siblings(pairs, pairs, 1, seed), strict=True):
        if negative and len(result) < rows:
            second = pair.positive if len(result) % 2 == 0 else negative[0]
            result.append({"sentence1": pair.query, "sentence2": second, "score": 1 - len(result) % 2})
    return {"test.jsonl": result}


def sts_test(pairs: Sequence[Pair], rows: int, seed: int) -> Files:
    """Pairs of texts graded by how near their functions stand, a quarter of each.

    5: the same function; 3: the same module; 1.5: the same package, another sub-package; 0: another package.
    """
    near = siblings(pairs, pairs, 1, seed)
    result: list[Row] = []
    for index, (pair, neighbours) in enumerate(zip(pairs, near, strict=True)):
        if len(result) == rows:
            break
        grade = len(result) % 4
        if grade == 0:
            second: str | None = pair.positive
        elif grade == 1:
            second = neighbours[0] if neighbours else None
        else:
            second = _far(pair, pairs[index + 1 :], same_package=grade == 2)
        if second:
            score = (5.0, 3.0, 1.5, 0.0)[grade]
            result.append({"sentence1": pair.query, "sentence2": second, "score": score})
    return {"test.jsonl": result}


def _far(pair: Pair, others: Iterable[Pair], *, same_package: bool) -> str | None:
    package, area = _place(pair)
    for other in others:
        package_of_other, area_of_other = _place(other)
        if (package == package_of_other) == same_package and area != area_of_other:
            return other.positive
    return None


def _place(pair: Pair) -> tuple[str, tuple[str, ...]]:
    parts = pair.module.split(".")
    return parts[0], tuple(parts[:3])


def balanced(rows: Sequence[Labelled], labels: int, least: int, most: int) -> list[Labelled]:
    """Rows of the most frequent labels, the first of each in the order given.

    Args:
        rows: in the order of preference.
        labels: most labels kept.
        least: a label with fewer texts is left out.
        most: texts kept per label.
    """
    counts = Counter(row.label for row in rows)
    ranking = sorted(counts, key=lambda label: (-counts[label], label))
    kept = {label for label in ranking[:labels] if counts[label] >= least}
    return spread([row for row in rows if row.label in kept], lambda row: row.label, most)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON lines, or as tab-separated values when the name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        if path.suffix == ".tsv":
            stream.write("\t".join(rows[0]) + "\n")
            stream.writelines("\t".join(str(value) for value in row.values()) + "\n" for row in rows)
        else:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
