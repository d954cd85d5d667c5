"""Task folders read and checked: seven forms, plain Python data, no mteb.

The forms are those of BEIR (retrieval) and JSONL files named after the split (all others). Everything that can be
wrong with a folder is found here, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from boom_ray.config import TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.rows import Row, read_qrels, read_rows

Label: TypeAlias = int | str


@dataclass(frozen=True)
class HeldOut:
    """One text that must not be trained on.

    Attributes:
        role: ``queries``, ``passages`` or ``texts``.
        forms: how it may be written; each of them counts.
    """

    role: str
    forms: tuple[str, ...]


@dataclass(frozen=True)
class RetrievalData:
    """A BEIR folder.

    Attributes:
        corpus: passage id to title and text.
        queries: query id to text, for the queries that the split judges.
        relevant: query id to passage id to relevance; 0 is judged and not relevant.
    """

    corpus: dict[str, tuple[str, str]]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]

    def encoded(self) -> Iterator[str]:
        """Every text a model must encode."""
        yield from self.queries.values()
        yield from (text for _, text in self.corpus.values())

    def held_out(self) -> Iterator[HeldOut]:
        """Texts that must not be trained on: queries and relevant passages, those without and with their title."""
        yield from _held_out("queries", self.queries.values())
        judged = (key for scores in self.relevant.values() for key, score in scores.items() if score > 0)
        for title, text in (self.corpus[passage] for passage in dict.fromkeys(judged)):
            yield HeldOut("passages", (text, f"{title} {text}") if title else (text,))

    def judged(self) -> Iterator[str]:
        """All forms of those texts."""
        return _forms(self.held_out())


@dataclass(frozen=True)
class RankingData:
    """Reranking: per query its positive and negative passages."""

    queries: list[str]
    positives: list[list[str]]
    negatives: list[list[str]]

    def encoded(self) -> Iterator[str]:
        """Every text a model must encode."""
        return chain(self.queries, chain.from_iterable(self.positives), chain.from_iterable(self.negatives))

    def held_out(self) -> Iterator[HeldOut]:
        """Texts that must not be trained on: queries and positives."""
        return chain(_held_out("queries", self.queries), _held_out("passages", chain.from_iterable(self.positives)))

    def judged(self) -> Iterator[str]:
        """All forms of those texts."""
        return _forms(self.held_out())


@dataclass(frozen=True)
class PairData:
    """STS, pair classification and bitext: two texts per row, and a score (0 or 1 for pairs, 1 for bitext)."""

    first: list[str]
    second: list[str]
    scores: list[float]

    def encoded(self) -> Iterator[str]:
        """Every text a model must encode."""
        return chain(self.first, self.second)

    def held_out(self) -> Iterator[HeldOut]:
        """Texts that must not be trained on: all."""
        return _held_out("texts", self.encoded())

    def judged(self) -> Iterator[str]:
        """All forms of those texts."""
        return _forms(self.held_out())


@dataclass(frozen=True)
class LabelledData:
    """Classification and clustering: texts and labels; ``train`` parts serve the probe, empty for clustering."""

    texts: list[str]
    labels: list[int]
    train_texts: list[str]
    train_labels: list[int]

    def encoded(self) -> Iterator[str]:
        """Every text a model must encode; the probe sees a few of the training texts, which are left out."""
        return iter(self.texts)

    def held_out(self) -> Iterator[HeldOut]:
        """Texts that must not be trained on: those of the test split."""
        return _held_out("texts", self.texts)

    def judged(self) -> Iterator[str]:
        """All forms of those texts."""
        return _forms(self.held_out())


def _held_out(role: str, texts: Iterable[str]) -> Iterator[HeldOut]:
    return (HeldOut(role, (text,)) for text in texts)


def _forms(found: Iterable[HeldOut]) -> Iterator[str]:
    return chain.from_iterable(one.forms for one in found)


FolderData: TypeAlias = RetrievalData | RankingData | PairData | LabelledData


def task_folder(task: TaskConfig) -> Path:
    """The local folder of a task.

    Raises:
        EvaluationError: it does not exist.
    """
    folder = Path(task.path or "").expanduser()
    if not task.path or not folder.is_dir():
        raise EvaluationError(
            f"Task {task.name}: there is no folder {task.path}. Correct its path; relative paths start at {Path.cwd()}."
        )
    return folder


def task_files(task: TaskConfig) -> list[Path]:
    """The files that the task's split is made of; they need not exist."""
    folder = task_folder(task)
    if task.type == "retrieval":
        return [folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{task.split}.tsv"]
    if task.type == "classification":
        return [folder / f"{task.split}.jsonl", folder / f"{train_split(task.split)}.jsonl"]
    if task.type == "reranking" and (folder / f"rerank.{task.split}.jsonl").exists():
        return [folder / f"rerank.{task.split}.jsonl"]
    return [folder / f"{task.split}.jsonl"]


def train_split(split: str) -> str:
    """The split that trains the probe: ``train``, or ``NAME.train`` beside ``NAME.test``."""
    return ".".join([*split.split(".")[:-1], "train"])


def read_folder(task: TaskConfig) -> FolderData:
    """Read and check the folder of a task.

    Raises:
        EvaluationError: a missing file, a malformed row (with file and line), or data that cannot be scored.
    """
    assert task.type is not None  # the configuration refuses a path without a type
    return READERS[task.type](task)


def _read_retrieval(task: TaskConfig) -> RetrievalData:
    corpus_file, query_file, qrels_file = task_files(task)
    corpus = {key: _passage(row) for key, row in _by_id(corpus_file).items()}
    queries = {key: row.text("text") for key, row in _by_id(query_file).items()}
    relevant: dict[str, dict[str, int]] = {}
    for line, query, passage, score in read_qrels(qrels_file):
        for known, key, file in ((queries, query, query_file), (corpus, passage, corpus_file)):
            if key not in known:
                raise EvaluationError(f"{qrels_file}:{line}: id {key!r} is not in {file.name}.")
        if relevant.setdefault(query, {}).setdefault(passage, score) != score:
            raise EvaluationError(f"{qrels_file}:{line}: {query!r} and {passage!r} were given another score before.")
    if not relevant:
        raise EvaluationError(
            f"{qrels_file} holds no judgements; a retrieval task needs at least one relevant passage."
        )
    _check_each_query_has_relevant(qrels_file, query_file, queries, relevant)
    return RetrievalData(corpus, {key: queries[key] for key in queries if key in relevant}, relevant)


def _check_each_query_has_relevant(
    qrels: Path, query_file: Path, queries: dict[str, str], relevant: dict[str, dict[str, int]]
) -> None:
    """A query of another split is fine; one that no split knows, or that has only zeros, is a fault of the data."""
    known = set(relevant)
    for other in sorted(set(qrels.parent.glob("*.tsv")) - {qrels}):
        known |= {query for _, query, _, _ in read_qrels(other)}
    bad = [key for key in queries if key not in known]
    bad += [key for key, scores in relevant.items() if max(scores.values()) <= 0]
    if bad:
        raise EvaluationError(
            f"{qrels}: {len(bad)} queries of {query_file.name} have no relevant passage, e.g. {bad[0]!r}. "
            f"Give each a passage with a score above 0, or take them out of {query_file.name}."
        )


def _by_id(path: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in read_rows(path):
        key = row.identifier()
        if key in found:
            row.fail(f"_id {key!r} was used before, in line {found[key].line}; ids must be unique.")
        found[key] = row
    return found


def _passage(row: Row) -> tuple[str, str]:
    """Title and text; real collections have passages with one of them empty."""
    title, text = row.values.get("title") or "", row.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        row.fail("title and text must be texts.")
    return title, text


def _read_ranking(task: TaskConfig) -> RankingData:
    rows = read_rows(task_files(task)[0])
    return RankingData(
        queries=[row.text("query") for row in rows],
        positives=[row.texts("positive") for row in rows],
        negatives=[row.texts("negative") for row in rows],
    )


def _read_sts(task: TaskConfig) -> PairData:
    data = _read_scored(task, *task.score_range)
    if len(set(data.scores)) < 2:
        raise EvaluationError(f"{task_files(task)[0]}: all scores are equal; a correlation needs different ones.")
    return data


def _read_pairs(task: TaskConfig) -> PairData:
    data = _read_scored(task, 0, 1)
    if set(data.scores) != {0.0, 1.0}:
        raise EvaluationError(f"{task_files(task)[0]}: pairs need both scores, 0 and 1, and no others.")
    return data


def _read_scored(task: TaskConfig, lowest: float, highest: float) -> PairData:
    rows = read_rows(task_files(task)[0])
    return PairData(
        first=[row.text("sentence1") for row in rows],
        second=[row.text("sentence2") for row in rows],
        scores=[row.number("score", lowest, highest) for row in rows],
    )


def _read_bitext(task: TaskConfig) -> PairData:
    rows = read_rows(task_files(task)[0])
    first = [row.text("sentence1", "query") for row in rows]
    return PairData(first, [_translation(row) for row in rows], [1.0] * len(rows))


def _translation(row: Row) -> str:
    if "pos" not in row.values:
        return row.text("sentence2")
    texts = row.texts("pos")
    if len(texts) > 1:
        row.fail(f"pos holds {len(texts)} texts; a bitext row needs exactly one.")
    return texts[0]


def _read_classification(task: TaskConfig) -> LabelledData:
    test_file, train_file = task_files(task)
    test, train = read_rows(test_file), read_rows(train_file)
    numbers = _label_numbers([*train, *test])
    labels, train_labels = _labels(test, test_file, numbers), _labels(train, train_file, numbers)
    if not set(labels) & set(train_labels):
        raise EvaluationError(f"{test_file}: none of its labels occurs in {train_file.name}; are they written alike?")
    return LabelledData([row.text("text") for row in test], labels, [row.text("text") for row in train], train_labels)


def _read_clustering(task: TaskConfig) -> LabelledData:
    (file,) = task_files(task)
    rows = read_rows(file)
    return LabelledData([row.text("text") for row in rows], _labels(rows, file, _label_numbers(rows)), [], [])


def _label_numbers(rows: list[Row]) -> dict[Label, int]:
    """Whole-number labels stay as they are; if there is any other, all are numbered in the order of their text."""
    found: set[Label] = {_label(row) for row in rows}
    if all(isinstance(label, int) for label in found):
        return {label: int(label) for label in found}
    return {label: number for number, label in enumerate(sorted(found, key=lambda label: (str(label), repr(label))))}


def _label(row: Row) -> Label:
    value = row.get("label")
    if isinstance(value, bool) or not isinstance(value, int | str):
        row.fail(f"label must be a whole number or text, not {value!r}.")
    return value


def _labels(rows: list[Row], path: Path, numbers: dict[Label, int]) -> list[int]:
    labels = [numbers[_label(row)] for row in rows]
    if len(set(labels)) < 2:
        raise EvaluationError(f"{path}: all rows have the same label; at least two different labels are needed.")
    return labels


READERS: dict[str, Callable[[TaskConfig], FolderData]] = {
    "retrieval": _read_retrieval,
    "reranking": _read_ranking,
    "sts": _read_sts,
    "pair": _read_pairs,
    "bitext": _read_bitext,
    "classification": _read_classification,
    "clustering": _read_clustering,
}
