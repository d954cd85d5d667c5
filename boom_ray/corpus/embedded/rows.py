"""Records to rows: which text of a function asks for which other one, and which label a text has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from boom_ray.corpus.embedded.docstrings import sentences
from boom_ray.corpus.embedded.parse import Function, Note

_WORDS = re.compile(r"[^\W_]+")
TRANSPARENT = frozenset({"core", "_core", "algorithms", "models", "_internal", "_private", "modules", "v2"})
GENERIC = frozenset({"util", "utils", "utilities", "base", "common", "lib", "compat", "misc", "exc", "errors", "types"})
ANY_NAME = frozenset({"args", "kwargs", "params", "data", "name", "value", "values", "obj", "input", "output", "key"})
CATCH_ALL = frozenset({"AssertionError", "Exception", "RuntimeError", "Error"})


@dataclass(frozen=True)
class Pair:
    """A query and the one text that answers it; ``owner`` is the function both come from."""

    owner: str
    query: str
    positive: str

    @property
    def module(self) -> str:
        """Module of the function; its other functions make hard negatives."""
        return self.owner.partition(":")[0]


@dataclass(frozen=True)
class Labelled:
    """A text of a function and its label."""

    owner: str
    text: str
    label: str


def doc_pairs(functions: Iterable[Function], limit: int) -> list[Pair]:
    """Summary line to the rest of the docstring, at most ``limit`` characters of it."""
    return [
        Pair(function.owner, function.summary, clip(function.description, limit))
        for function in functions
        if _is_query(function.summary)
        and len(function.description) >= 60
        and not is_contained(function.summary, function.description)
    ]


def code_pairs(functions: Iterable[Function], limit: int) -> list[Pair]:
    """Summary line to source code without docstring and comments."""
    return [
        Pair(function.owner, function.summary, clip(function.code, limit))
        for function in functions
        if _is_query(function.summary)
        and function.code.count("\n") >= 3
        and not is_contained(function.summary, function.code)
    ]


def comment_pairs(notes: Iterable[Note], limit: int) -> list[Pair]:
    """Comment to the code below it."""
    return [
        Pair(note.owner, clip(note.text, limit), clip(note.answer, limit))
        for note in notes
        if note.kind == "comment"
        and _is_query(note.text)
        and len(note.answer) >= 60
        and not is_contained(note.text, note.answer)
    ]


def error_labels(notes: Iterable[Note], limit: int) -> list[Labelled]:
    """Error message to the class of the exception; catch-all classes, which say little, are left out."""
    return [
        Labelled(note.owner, clip(note.text, limit), note.answer)
        for note in notes
        if note.kind == "error" and note.answer not in CATCH_ALL and word_count(note.text) >= 4
    ]


def topic_labels(functions: Iterable[Function], limit: int) -> list[Labelled]:
    """Docstring to the sub-package that the function is in."""
    return [
        Labelled(function.owner, clip(f"{function.summary}. {function.description}", limit), topic)
        for function in functions
        if _is_query(function.summary) and (topic := topic_of(function.owner))
    ]


def parameter_labels(functions: Iterable[Function], limit: int) -> list[Labelled]:
    """Description of a parameter to its name; the names of everything (``data``, ``x``) are left out."""
    return [
        Labelled(function.owner, clip(words, limit), name)
        for function in functions
        for name, words in function.parameters
        if len(name) >= 3 and name not in ANY_NAME and word_count(words) >= 5 and not name.endswith("_")
    ]


def sentence_pairs(functions: Iterable[Function], limit: int) -> list[Pair]:
    """Two different sentences of one docstring's prose."""
    pairs = []
    for function in functions:
        whole = [part for part in sentences(function.description) if ": " not in part]  # the others list parameters
        prose = [part for part in whole if 6 <= word_count(part) <= 60]
        if _is_query(function.summary) and prose:
            second = prose[len(prose) // 2]
            if not is_contained(function.summary, second) and not is_contained(second, function.summary):
                pairs.append(Pair(function.owner, function.summary, clip(second, limit)))
    return pairs


def topic_of(owner: str) -> str | None:
    """Package and first component that means something, e.g. ``scipy.stats``; None when there is none."""
    package, *rest = owner.partition(":")[0].split(".")
    for part in rest:
        if part in TRANSPARENT:
            continue
        return None if part.startswith("_") or part in GENERIC else f"{package}.{part}"
    return None


def clip(text: str, limit: int) -> str:
    """At most ``limit`` characters of a text, cut at a word."""
    if len(text) <= limit:
        return text
    return text[: limit + 1].rsplit(None, 1)[0][:limit].rstrip()


def is_contained(query: str, text: str) -> bool:
    """Whether the query's words stand in the text one after the other: then finding it is no test of meaning."""
    needle = " ".join(_WORDS.findall(query.lower()))
    return f" {needle} " in f" {' '.join(_WORDS.findall(text.lower()))} "


def word_count(text: str) -> int:
    """Words of a text; ``{}`` counts for nothing."""
    return len(_WORDS.findall(text))


def _is_query(text: str) -> bool:
    usable = 4 <= word_count(text) <= 50 and len(text) <= 300 and text.isprintable()
    return usable and not text.lower().startswith("deprecated")
