"""BEIR folders: qrels joined to queries and passages, one row per judged query.

The qrels are divided by query among the fragments; each fragment reads the passage file once and keeps only the
passages it needs, so that memory is bounded by its share of the qrels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from boom_ray.errors import DataError
from boom_ray.hashing import text_key


@dataclass
class _Judged:
    line: int  # of the first judgement
    positives: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)


def read(fs: Any, folder: str, qrels: str, share: int, shares: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows ``{"query", "pos", "neg"}`` of one share of the queries.

    Args:
        fs: fsspec file system.
        folder: path of the BEIR folder.
        qrels: path of the qrels file in it: query id, passage id, score, by tabs, with or without header.
        share: number of this share, from 0.
        shares: number of shares.

    Yields:
        The line of the query's first judgement, and its row or what is missing. Passages judged 0 or lower are
        negatives; queries with no positive passage are left to the caller as rows with an empty ``pos``.

    Raises:
        DataError: a line of one of the files has another form.
    """
    judged = _judgements(fs, f"{folder}/{qrels}", share, shares)
    needed = {name for one in judged.values() for name in (*one.positives, *one.negatives)}
    queries = _texts(fs, f"{folder}/queries.jsonl", set(judged))
    passages = _texts(fs, f"{folder}/corpus.jsonl", needed)
    for query, one in judged.items():
        missing = [name for name in (*one.positives, *one.negatives) if name not in passages]
        if query not in queries:
            yield one.line, f"query {query} is not in queries.jsonl"
        elif missing:
            yield one.line, f"passage {missing[0]} is not in corpus.jsonl"
        else:
            texts = {role: [passages[name] for name in names] for role, names in _roles(one).items()}
            yield one.line, {"query": queries[query], **texts}


def _roles(one: _Judged) -> dict[str, list[str]]:
    """Ids by column, in an order that the file's order does not change."""
    return {"pos": sorted(set(one.positives)), "neg": sorted(set(one.negatives) - set(one.positives))}


def _judgements(fs: Any, path: str, share: int, shares: int) -> dict[str, _Judged]:
    judged: dict[str, _Judged] = {}
    with fs.open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            fields = line.decode("utf-8-sig").strip("\r\n").split("\t")
            if fields == [""] or (number == 1 and fields[-1].lower() in {"score", "relevance", "label"}):
                continue
            try:
                query, passage, score = fields
                value = float(score)
            except ValueError:
                raise DataError(
                    f"{path}:{number}: expected query id, passage id and score, separated by tabs."
                ) from None
            if text_key(query) % shares == share:
                one = judged.setdefault(query, _Judged(number))
                (one.positives if value > 0 else one.negatives).append(passage)
    return judged


def _texts(fs: Any, path: str, wanted: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    with fs.open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, text = str(row["_id"]), row["text"]
                title = row.get("title") or ""
                if not isinstance(text, str) or not isinstance(title, str):
                    raise TypeError("title and text must be texts")
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: expected an object with _id and text ({error!r}).") from error
            if name in wanted:
                texts[name] = f"{title} {text}".strip()
    return texts
