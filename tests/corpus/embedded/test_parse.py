from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.embedded.parse import Function, Note, literal_text, parse_source

SOURCE = textwrap.dedent(
    '''
    import os

    class Shape:
        """A thing with an area."""

        @property
        def area(self):
            """Area of the thing in square metres.

            It is never negative.
            """
            # secret words of a comment
            side = self.side  # kept
            return area(side)

        async def grow(self, by):
            # make every side longer than before
            self.side += by
            self.changed = True

            other()
            for way in by:
                try:
                    way()
                except OSError:
                    raise ValueError(f"cannot grow by {by!r} here")

    if os.name == "posix":
        def inside_a_block():
            """A function that only some systems have."""
    '''
)


def records(source=SOURCE):
    return parse_source(source, "pack.mod")


def functions(source=SOURCE):
    return {record.owner: record for record in records(source) if isinstance(record, Function)}


def test_owners_are_module_and_qualified_name():
    assert list(functions()) == ["pack.mod:Shape", "pack.mod:Shape.area", "pack.mod:inside_a_block"]


def test_code_has_no_docstring_no_comment_lines_and_no_name():
    code = functions()["pack.mod:Shape.area"].code
    assert code == "def f(self):\n    side = self.side  # kept\n    return f(side)"


def test_the_head_is_short_and_hides_the_name():
    source = '''
def mean(values: list[float], /, axis: int = 0, *rest: str, keep: bool = False, **more: int) -> float:
    """Mean of values."""
    return mean.helper(values) + meanwhile
'''
    code = functions(source)["pack.mod:mean"].code
    assert code == "def f(values, axis, *rest, keep, **more):\n    return f.helper(values) + meanwhile"


def test_no_code_below_the_docstring():
    assert functions('def f():\n    """Only words."""\n')["pack.mod:f"].code == ""


def test_docstrings_hold_no_comments():
    source = 'def f():\n    """Do it.\n\n    # first point of a list\n    then words\n    """\n    return 1\n'
    assert [record for record in records(source) if isinstance(record, Note)] == []


def test_classes_have_no_code():
    assert functions()["pack.mod:Shape"].code == ""


def test_errors_and_comments():
    notes = [record for record in records() if isinstance(record, Note)]
    assert notes == [
        Note(
            "pack.mod:Shape.area", "comment", "secret words of a comment", "side = self.side  # kept\nreturn area(side)"
        ),
        Note("pack.mod:Shape.grow", "error", "cannot grow by {} here", "ValueError"),
        Note(
            "pack.mod:Shape.grow",
            "comment",
            "make every side longer than before",
            "self.side += by\nself.changed = True",
        ),
    ]


def test_form_feeds_do_not_shift_lines():
    shifted = functions(SOURCE.replace("import os\n", "import os\n\x0c\n"))
    assert shifted["pack.mod:Shape.area"].code == functions()["pack.mod:Shape.area"].code


def test_invalid_source_gives_nothing():
    assert records("def broken(:\n") == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'plain'", "plain"),
        ("f'a {x} b {y:.2f}'", "a {} b {}"),
        ("'a ' + 'b ' + str(x)", "a b {}"),
        ("'a %s of %5.2f' % (x, y)", "a {} of {}"),
        ("'a {} of {name!r}'.format(x)", "a {} of {}"),
        ("message", "{}"),
        ("3", "{}"),
    ],
)
def test_literal_text(expression, expected):
    assert literal_text(ast.parse(expression, mode="eval").body) == expected


@given(st.text(alphabet="def clas():\n #\"'xyz=+@", max_size=120))
def test_any_source_is_taken(source):
    for record in parse_source(source, "m"):
        assert record.owner.startswith("m:")
