"""Python source to records, read with `ast` and never imported.

One record per documented function or class, and one per comment and error message; each names the
function it is in (its owner), because training and test sets are split by owner.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from boom_ray.corpus.embedded.docstrings import parse_docstring, plain

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
LONGEST = 4000  # characters of a text before sampling; what is longer was never read to its end by an encoder anyway
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
_NEW_LINE = re.compile(r"\r\n|\r|\n")
_COMMENT = re.compile(r"^\s*#+[:!]?\s?")
_TOOL_COMMENT = re.compile(
    r"noqa|type:|pragma|pylint|mypy|TODO|FIXME|XXX|HACK|fmt:|isort|copyright|licen[sc]e|https?:|^[^a-zA-Z(`'\"]|[-=*#]{4,}",
    re.IGNORECASE,
)
_CODE_IN_COMMENT = re.compile(r"[=(){}\[\];]|^\s*(if|for|return|import|def|else)\b")


@dataclass(frozen=True)
class Function:
    """One documented function, method or class.

    Attributes:
        owner: its id, ``package.module:qualified.name``.
        summary: first sentence of its docstring.
        description: the rest of the docstring as prose.
        code: its source without docstring and comments; empty for classes.
        parameters: names and descriptions of its documented parameters.
    """

    owner: str
    summary: str
    description: str
    code: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """A short text inside a function: ``kind`` is ``comment`` or ``error``.

    Attributes:
        owner: id of the function.
        kind: what it is.
        text: the comment or message, ``{}`` for the parts that are filled in.
        answer: the code that follows the comment, or the exception's name.
    """

    owner: str
    kind: str
    text: str
    answer: str


Record = Function | Note


def package_of(owner: str) -> str:
    """Package of an owner's id."""
    return owner.partition(":")[0].partition(".")[0]


def parse_source(source: str, module: str) -> list[Record]:
    """All records of one module; empty when the source is not valid for this Python version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = _NEW_LINE.split(source)  # as Python counts lines; str.splitlines also ends them at form feeds
    return list(_walk(tree, module, "", lines))


def _walk(parent: ast.AST, module: str, prefix: str, lines: list[str]) -> Iterator[Record]:
    """Definitions at any depth of nesting in classes and blocks; a function's inner functions are part of it."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{node.name}"
            owner = f"{module}:{name}"
            yield from _function(node, owner, lines)
            if isinstance(node, ast.ClassDef):
                yield from _walk(node, module, f"{name}.", lines)
            else:
                yield from _messages(node, owner)
                yield from _comments(node, owner, lines)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _walk(node, module, prefix, lines)


def _function(node: Definition, owner: str, lines: list[str]) -> Iterator[Function]:
    raw = ast.get_docstring(node, clean=False)
    doc = parse_docstring(raw) if raw else None
    if doc is None or not doc.summary:
        return
    code = "" if isinstance(node, ast.ClassDef) else _code(node, lines)
    yield Function(owner, doc.summary, doc.description[:LONGEST], code[:LONGEST], doc.parameters)


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    """Source below the docstring, without comment lines and blank lines; empty when there is none.

    The head is ``def f(parameter names):``. A name such as ``compute_mean`` would answer "Compute the mean" without a
    look at the code, and annotations would fill the text before the code begins.
    """
    if len(node.body) < 2:
        return ""
    first, last = node.body[1].lineno, node.end_lineno or node.lineno
    kept = [
        line for line in lines[first - 1 : min(last, first + 200)] if line.strip() and not line.lstrip().startswith("#")
    ]
    body = textwrap.indent(textwrap.dedent("\n".join(kept)), "    ")
    if node.name in body:
        body = re.sub(rf"\b{node.name}\b", "f", body)
    return f"def f({', '.join(_parameter_names(node.args))}):\n{body}"


def _parameter_names(arguments: ast.arguments) -> list[str]:
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [argument.arg for argument in arguments.kwonlyargs]
    return names + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])


def _messages(node: Definition, owner: str) -> Iterator[Note]:
    """Messages of ``raise SomeError("…")``."""
    for inner in _statements(node):
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call) and inner.exc.args:
            name = _last_name(inner.exc.func)
            text = plain(literal_text(inner.exc.args[0]))
            if text and name.endswith(("Error", "Exception")):
                yield Note(owner, "error", text[:LONGEST], name)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements inside a definition; several times as fast as `ast.walk`, which visits every expression."""
    for block in _BLOCKS:
        for inner in getattr(node, block, ()):
            yield inner
            yield from _statements(inner)


def literal_text(node: ast.expr) -> str:
    """The text of a string expression, ``{}`` for what is filled in; empty when it is not mostly literal."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "{}"
    if isinstance(node, ast.JoinedStr):
        return "".join(literal_text(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return literal_text(node.left) + literal_text(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return re.sub(r"%(\(\w+\))?[-+ #0]*[\d.]*[a-zA-Z]", "{}", literal_text(node.left))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return re.sub(r"\{[^{}]*\}", "{}", literal_text(node.func.value))
    return "{}"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _comments(node: Definition, owner: str, lines: list[str]) -> Iterator[Note]:
    """Comment blocks and the code that follows each, up to a blank line, another comment or the block's end."""
    start_of_body = node.body[0].end_lineno if ast.get_docstring(node, clean=False) else node.lineno
    number, last = start_of_body or node.lineno, min(node.end_lineno or node.lineno, len(lines))
    while number < last:
        line = lines[number]
        if not line.lstrip().startswith("#"):
            number += 1
            continue
        start = number
        while number < last and lines[number].lstrip().startswith("#"):
            number += 1
        words = plain(" ".join(_COMMENT.sub("", text) for text in lines[start:number]))
        code = _block(lines, number, last, len(line) - len(line.lstrip()))
        if code and not _TOOL_COMMENT.search(words) and not _CODE_IN_COMMENT.search(words):
            yield Note(owner, "comment", words[:LONGEST], code)


def _block(lines: list[str], start: int, last: int, indent: int) -> str:
    block: list[str] = []
    for line in lines[start : min(last, start + 15)]:
        if not line.strip() or line.lstrip().startswith("#") or len(line) - len(line.lstrip()) < indent:
            break
        block.append(line)
    return textwrap.dedent("\n".join(block))[:LONGEST]
