"""Docstrings taken apart: summary, description, parameters; NumPy, Google and Sphinx styles.

Text only: nothing is imported or executed, and unknown markup passes through as plain words.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"(?<=[a-z0-9)`\]'\"][.!?])\s+(?=[A-Z`(\"'])")
_ROLE = re.compile(r":[a-zA-Z:+-]+:`~?\.?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_+")
_TICKS = re.compile(r"``?([^`]*)``?_*")
_DIRECTIVE = re.compile(r"^\s*\.\. [\w:-]+::.*$|^\s*:(?:no\w+|math|label|width|align|alt):.*$", re.MULTILINE)
_CITATION = re.compile(r"\[\w+\]_|\.\. \[\w+\]|\[\d+\]")
_SPACE = re.compile(r"\s+")
_RULE = re.compile(r"^[-=~]{3,}\s*$")
_GOOGLE_TITLE = re.compile(r"^([A-Z][A-Za-z ]{2,24})::?\s*$")
_SPHINX_FIELD = re.compile(r"^:(\w+)(?:\s+([^:]*))?:\s*(.*)$")
_NUMPY_PARAMETER = re.compile(r"^\*{0,2}([A-Za-z_]\w*)(?:\s*:.*)?$")
_GOOGLE_PARAMETER = re.compile(r"^\*{0,2}`{0,2}([A-Za-z_]\w*)`{0,2}\s*(?:\([^)]*\))?\s*:\s*(.*)$")
PARAMETER_TITLES = frozenset({"parameters", "other parameters", "args", "arguments", "keyword args", "attributes"})
PROSE_TITLES = frozenset({"", "notes", "note", "returns", "return", "yields", "warning", "warnings"})
OTHER_TITLES = frozenset(
    {"example", "examples", "reference", "references", "see also", "raises", "raise", "warns", "shape", "usage"}
    | {"methods", "todo", "callbacks", "inputs", "outputs", "requirements"}
)
_TITLES = PARAMETER_TITLES | PROSE_TITLES | OTHER_TITLES
_LICENCE = re.compile(r"copyright|licen[sc]ed? under|all rights reserved|redistribut", re.IGNORECASE)


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring that become texts.

    Attributes:
        summary: first sentence, without its final full stop.
        description: everything else that is prose; examples, references and directives are left out.
        parameters: name and description of every documented parameter.
    """

    summary: str
    description: str
    parameters: tuple[tuple[str, str], ...]


def parse_docstring(raw: str) -> Docstring | None:
    """Take a docstring apart.

    Returns:
        None for an empty one, a licence header, or a template that is filled in at run time.
    """
    text = inspect.cleandoc(raw)
    if not text or _LICENCE.search(text) or "%(" in text or "{{" in text or re.search(r"\{\w+\}", text):
        return None
    sections = _sections(_without_doctests(text).splitlines())
    first, _, remainder = "\n".join(sections[0][1]).strip().partition("\n\n")
    head = _SENTENCE_END.split(plain(first), maxsplit=1)
    prose = [*head[1:], plain(remainder)]
    parameters: list[tuple[str, str]] = []
    for title, lines in sections[1:]:
        if title in PARAMETER_TITLES:
            found = _parameters(lines)
            parameters += found
            prose += [f"{name}: {words}" for name, words in found]
        elif title in PROSE_TITLES:
            prose.append(plain("\n".join(lines)))
    if not head[0]:
        return None
    return Docstring(
        summary=head[0].rstrip(". "),
        description=" ".join(part for part in prose if part),
        parameters=tuple(parameters),
    )


def plain(text: str) -> str:
    """One line of plain words: reStructuredText roles, links, ticks, directives and line breaks are removed."""
    text = _DIRECTIVE.sub("", text)
    text = _ROLE.sub(r"\1", text)
    text = _LINK.sub(r"\1", text)
    text = _TICKS.sub(r"\1", text)
    text = _CITATION.sub("", text)
    return _SPACE.sub(" ", text).strip()


def sentences(text: str) -> list[str]:
    """Sentences of plain text, in order."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _without_doctests(text: str) -> str:
    """Drop interactive examples and their output, up to the blank line that ends them: they would give answers away."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        bare = line.strip()
        inside = bare.startswith(">>>") or (inside and bool(bare))
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Lower-case title and dedented lines of each section; the first one has no title."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        google = _google_title(line)
        field = _SPHINX_FIELD.match(line)
        if line and _RULE.match(following) and not _RULE.match(line):
            sections.append((line.strip().lower(), []))
        elif google:
            sections.append((google, []))
        elif field:
            sections.append(_sphinx_section(field))
        elif not _RULE.match(line):
            sections[-1][1].append(line)
    return [(title, inspect.cleandoc("\n" + "\n".join(body)).splitlines()) for title, body in sections]


def _google_title(line: str) -> str | None:
    """The title in ``Title:``, if it is a known one; other lines that end with a colon are prose."""
    match = _GOOGLE_TITLE.match(line)
    title = match.group(1).strip().lower() if match else ""
    return title if title and title in _TITLES else None


def _sphinx_section(field: re.Match[str]) -> tuple[str, list[str]]:
    kind, argument, words = field.groups()
    if kind in {"param", "parameter", "arg", "keyword"} and argument:
        return "args", [f"{argument.split()[-1]}: {words}"]
    return ("returns", [words]) if kind in {"return", "returns"} else (f":{kind}:", [words])


def _parameters(lines: list[str]) -> list[tuple[str, str]]:
    """Parameter entries: a line that names one, then its deeper lines."""
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        if line[:1].strip():
            match = _GOOGLE_PARAMETER.match(line) or _NUMPY_PARAMETER.match(line)
            if match:
                entries.append((match.group(1), [_google_words(line)]))
        elif entries:
            entries[-1][1].append(line)
    result = [(name, plain("\n".join(words))) for name, words in entries]
    return [(name, words) for name, words in result if words]


def _google_words(line: str) -> str:
    """Words after ``name (type):``; a NumPy entry ``name : type`` has its words on the lines below."""
    match = _GOOGLE_PARAMETER.match(line)
    if match is None or " : " in line.split(":", 1)[0] + ":" or re.match(r"^\*{0,2}\w+ :", line):
        return ""
    return match.group(2)
