"""Quick proxies of evaluation tasks, for sweeps: subsamples that rank models as the whole task does.

A proxy is a function of the task's content, a size and a seed. Rows are taken by keyed hashes of what they say, so
their order in the file does not matter and a smaller proxy lies inside every larger one of the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from boom_ray.config import EvaluationConfig, TaskConfig
from boom_ray.errors import EvaluationError
from boom_ray.evaluation.folders import (
    FolderData,
    LabelledData,
    PairData,
    RankingData,
    RetrievalData,
    read_folder,
    task_files,
)
from boom_ray.evaluation.lexical import Bm25, hardest
from boom_ray.hashing import U64, file_digest, mix64, stream_key, text_id, text_key

VERSION = 1
"""Raise it when the same task, size and seed give other rows; it is part of the scores' keys."""
HARD, OTHERS = 10, 5
"""Passages that a query of a retrieval task brings beside its judged ones: by BM25, and at random."""
CANDIDATES = 50
"""Most negatives of a reranking query: half of them by BM25, half at random."""
KEPT = 32
"""Proxies that a process keeps: an evaluation actor meets every task once per model."""

Places = npt.NDArray[np.intp]


def proxy_of(tasks: EvaluationConfig | Sequence[TaskConfig], size: int) -> tuple[TaskConfig, ...]:
    """The proxies of tasks, named NAME.SIZE; those of a configuration are of all its tasks.

    A proxy's name, not its task's, is what prompts stored in a model's folder are looked up by.

    Raises:
        EvaluationError: a task is one of mteb's own, which have no proxies.
    """
    found = tasks.all_tasks if isinstance(tasks, EvaluationConfig) else tuple(tasks)
    for task in found:
        if task.path is None:
            raise EvaluationError(
                f"Task {task.name} is one of mteb's own, which have no proxies; save it as a folder and set its path."
            )
    return tuple(_proxy(task, size) for task in found)


def _proxy(task: TaskConfig, size: int) -> TaskConfig:
    if task.size is not None and task.size <= size:
        return task
    return TaskConfig.model_validate(task.model_dump() | {"name": f"{task.name}.{size}", "size": size})


def load_data(task: TaskConfig, seed: int, hashes: Mapping[str, str] | None = None) -> FolderData:
    """What a task with a path is scored on: the data of its folder, cut down where the task has a size.

    Args:
        task: a task with a path.
        seed: see `subsample`.
        hashes: of the task's files by their names, where they are known; the files must still have them, for scores
            are kept under them.

    Raises:
        EvaluationError: see `read_folder` and `subsample`; or a file has changed since it was hashed.
    """
    files = task_files(task)
    if task.size is None or not all(file.is_file() for file in files):
        return _read(task, hashes or {})  # names the missing file
    own = hashes or {file.name: file_digest(file) for file in files}
    return _kept(task.model_dump_json(), tuple(own.items()), seed)


@lru_cache(maxsize=KEPT)
def _kept(task_json: str, hashes: tuple[tuple[str, str], ...], seed: int) -> FolderData:
    """Hashes are there to tell that a file has changed."""
    task = TaskConfig.model_validate_json(task_json)
    assert task.size is not None
    return subsample(task, _read(task, dict(hashes)), task.size, seed)


def _read(task: TaskConfig, hashes: Mapping[str, str]) -> FolderData:
    """What the files hold that have these hashes, if there are any; they are hashed after they are read."""
    data = read_folder(task)
    for file in task_files(task):
        if hashes and file_digest(file) != hashes.get(file.name):
            raise EvaluationError(
                f"Task {task.name}: {file} has changed since the job looked at it, so its scores would be kept as "
                f"those of the old data. Leave the folder as it is while a job runs, and run the same command again."
            )
    return data


def subsample(
    task: TaskConfig, data: FolderData, size: int, seed: int, hard: int = HARD, others: int = OTHERS
) -> FolderData:
    """The part of a task that ranks models quickly; the rows kept are unchanged and in their order.

    - Retrieval: ``size`` queries with all passages judged for them, the ``hard`` passages that BM25 ranks highest of
      the others for each, and ``size * others`` passages at random.
    - Reranking: queries with their candidates, at most `CANDIDATES` of them negatives. As in retrieval, passages are
      cut down even where all queries stay.
    - STS: rows from all tenths of the scores alike.
    - Pairs, and the test rows of classification: every label in proportion; what trains the probe stays.
    - Clustering: likewise, and every label that is there has two texts at least.
    - Bitext: rows.

    Proportions are those of Webster's method (Sainte-Laguë), which never takes back a row as the size grows.

    Args:
        task: names the task in errors; its type decides between the forms that look alike.
        data: of the whole task.
        size: most queries or rows. A task that has no more is returned as it is, unless it has more than
            ``size * (1 + hard + others)`` passages, or than `CANDIDATES` negatives for a query.
        seed: another one gives other rows.
        hard: hard passages per query.
        others: random passages per query of ``size``.

    Raises:
        EvaluationError: so few rows cannot be scored: they have one label, or one score.
    """
    if isinstance(data, RetrievalData):
        return _retrieval(data, size, seed, hard, others)
    if isinstance(data, RankingData):
        return _ranking(data, size, seed)
    if isinstance(data, PairData):
        return _pairs(task, data, size, seed)
    return _labelled(task, data, size, seed)


def _retrieval(data: RetrievalData, size: int, seed: int, hard: int, others: int) -> RetrievalData:
    if len(data.queries) <= size and len(data.corpus) <= size * (1 + hard + others):
        return data
    # Queries and passages may have the same ids, and must not have the same order.
    query_keys = _keys(seed, "queries", map(text_key, data.queries))
    chosen = _first(list(data.queries), query_keys, size)
    passages = list(data.corpus)
    passage_keys = _keys(seed, "passages", map(text_key, passages))
    kept = set(_first(passages, passage_keys, size * others))
    kept.update(chain.from_iterable(data.relevant[query] for query in chosen))
    kept.update(_hard_passages(data, chosen, passages, passage_keys, hard))
    return RetrievalData(
        corpus={key: passage for key, passage in data.corpus.items() if key in kept},
        queries={key: data.queries[key] for key in chosen},
        relevant={key: scores for key, scores in data.relevant.items() if key in set(chosen)},
    )


def _hard_passages(
    data: RetrievalData, chosen: Sequence[str], passages: Sequence[str], keys: U64, hard: int
) -> Iterable[str]:
    """The best passages by BM25 that nobody judged for the query; a judged one is kept in any case."""
    place_of = {key: place for place, key in enumerate(passages)}
    index = Bm25([f"{title} {text}" for title, text in data.corpus.values()], (data.queries[key] for key in chosen))
    for query in chosen:
        judged = [place_of[key] for key in data.relevant[query]]
        for place in hardest(index.scores(data.queries[query]), keys, hard, judged):
            yield passages[place]


def _ranking(data: RankingData, size: int, seed: int) -> RankingData:
    if len(data.queries) <= size and max(map(len, data.negatives)) <= CANDIDATES:
        return data
    rows = zip(data.queries, data.positives, data.negatives, strict=True)
    keys = _keys(seed, "rows", (_id(query, *positives, *negatives) for query, positives, negatives in rows))
    chosen = _first(range(len(keys)), keys, size)
    return RankingData(
        queries=[data.queries[place] for place in chosen],
        positives=[data.positives[place] for place in chosen],
        negatives=[_hard_negatives(data.queries[place], data.negatives[place], seed) for place in chosen],
    )


def _hard_negatives(query: str, negatives: list[str], seed: int) -> list[str]:
    if len(negatives) <= CANDIDATES:
        return negatives
    keys = _keys(seed, "passages", map(text_key, negatives))
    kept = set(hardest(Bm25(negatives, [query]).scores(query), keys, CANDIDATES // 2).tolist())
    rest = [place for place in np.argsort(keys, kind="stable").tolist() if place not in kept]
    kept.update(rest[: CANDIDATES - len(kept)])
    return [negatives[place] for place in sorted(kept)]


def _pairs(task: TaskConfig, data: PairData, size: int, seed: int) -> PairData:
    if len(data.scores) <= size:
        return data
    rows = zip(data.first, data.second, data.scores, strict=True)
    keys = _keys(seed, "rows", (_id(first, second, repr(score)) for first, second, score in rows))
    scores = np.array(data.scores)
    strata = _tenths(scores) if task.type == "sts" else scores.astype(np.intp)
    order = _order(keys, strata)
    if task.type != "bitext":
        _check(task, "scores", size, _least(scores[order], 1, len(scores)))
    chosen = np.sort(order[:size]).tolist()
    return PairData(_at(data.first, chosen), _at(data.second, chosen), _at(data.scores, chosen))


def _tenths(scores: npt.NDArray[np.float64]) -> Places:
    """Numbers of the tenths that scores lie in; those that lie on a border, as graded ones do, are on their own."""
    borders = np.unique(np.quantile(scores, np.arange(1, 10) / 10))
    return np.searchsorted(borders, scores, side="left") + np.searchsorted(borders, scores, side="right")


def _labelled(task: TaskConfig, data: LabelledData, size: int, seed: int) -> LabelledData:
    if len(data.texts) <= size:
        return data
    labels = np.array(data.labels)
    rows = zip(data.texts, data.labels, strict=True)
    keys = _keys(seed, "rows", (_id(text, str(label)) for text, label in rows))
    together = 2 if task.type == "clustering" else 1
    order = _order(keys, labels, together)
    least = _least(labels[order], together, len(labels))
    if task.type == "classification":
        least = max(least, 1 + int(np.argmax(np.isin(labels[order], data.train_labels))))
    _check(task, "labels", size, least)
    chosen = order[:size]
    if np.count_nonzero(labels[chosen] == labels[chosen[-1]]) < together:
        chosen = chosen[:-1]  # the text that must be with it comes after the end
    places = np.sort(chosen).tolist()
    return LabelledData(_at(data.texts, places), _at(data.labels, places), data.train_texts, data.train_labels)


def _order(keys: U64, strata: Places, together: int = 1) -> Places:
    """Rows in the order in which growing proxies take them, so that every beginning has the strata in proportion.

    The row of rank r (from 0, by key) in a stratum of n rows is taken at (r + 1/2) / n; where that is the same for
    two strata, the one with the smallest key of all its rows comes first.

    Args:
        keys: (N,), hashes of the rows.
        strata: (N,), whole numbers.
        together: how many first rows of a stratum come one right after the other; smaller strata are left out.

    Returns:
        Different numbers below N.
    """
    by_stratum = np.lexsort((keys, strata))
    _, starts, inverse, counts = np.unique(
        strata[by_stratum], return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.arange(len(keys)) - starts[inverse]
    taken_at = np.where(rank < together, together / 2, rank + 0.5) / counts[inverse]
    first_key = keys[by_stratum][starts[inverse]]
    order = np.lexsort((rank, first_key, taken_at))
    return by_stratum[order[counts[inverse][order] >= together]]


def _least(values: npt.NDArray[Any], together: int, everything: int) -> int:
    """How many of the values, in the order of `_order`, hold two different ones; ``everything`` where only all do."""
    differs = values != values[:1]
    return int(np.argmax(differs)) + together if differs.any() else everything


def _check(task: TaskConfig, what: str, size: int, least: int) -> None:
    if size < least:
        raise EvaluationError(
            f"Task {task.name}: its proxy of size {size} would not hold two different {what}, which a score needs. "
            f"Set its size to {least} or more."
        )


def _first(items: Sequence[Any], keys: U64, count: int) -> list[Any]:
    """The items with the smallest keys, in the order given."""
    chosen = np.sort(np.argsort(keys, kind="stable")[:count])
    return [items[place] for place in chosen.tolist()]


def _keys(seed: int, what: str, hashes: Iterable[int]) -> U64:
    return mix64(np.fromiter(hashes, dtype=np.uint64), stream_key(seed, "proxy", what))


def _id(*parts: str) -> int:
    return int.from_bytes(text_id(*parts)[:8], "little")


def _at(items: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [items[place] for place in places]
