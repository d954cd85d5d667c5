from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boom_ray.corpus.embedded.docstrings import parse_docstring, plain, sentences

NUMPY = """
    Return the :func:`mean` of an array. It is ``nan`` for empty ones.

    Longer text with a `link <https://x.org>`_ and [1]_.

    .. versionadded:: 1.2

    Parameters
    ----------
    a : array_like
        The input values.
    axis : int, optional
        Axis along which
        the mean is taken.

    Returns
    -------
    The mean.

    Examples
    --------
    >>> mean([1, 2])
    1.5

    References
    ----------
    .. [1] Somebody, 1999.
"""
GOOGLE = """Open a file.

    Args:
        path (str): Where it is.
            It may be relative.
        mode: How to open it.

    Returns:
        The stream.

    Example::

        with open(path) as stream: pass
"""
SPHINX = """Send a message.

    :param str text: What to send.
    :param to: Who gets it.
    :return: Its number.
    :raises OSError: never
"""


def test_numpy_style():
    doc = parse_docstring(NUMPY)
    assert doc is not None
    assert doc.summary == "Return the mean of an array"
    assert doc.parameters == (("a", "The input values."), ("axis", "Axis along which the mean is taken."))
    assert doc.description == (
        "It is nan for empty ones. Longer text with a link and . a: The input values. "
        "axis: Axis along which the mean is taken. The mean."
    )


def test_google_style():
    doc = parse_docstring(GOOGLE)
    assert doc is not None
    assert doc.summary == "Open a file"
    assert doc.parameters == (("path", "Where it is. It may be relative."), ("mode", "How to open it."))
    assert doc.description.endswith("The stream.")


def test_sphinx_style():
    doc = parse_docstring(SPHINX)
    assert doc is not None
    assert doc.parameters == (("text", "What to send."), ("to", "Who gets it."))
    assert doc.description == "text: What to send. to: Who gets it. Its number."


@pytest.mark.parametrize(
    "raw",
    ["", "   \n ", "Copyright 2020 Somebody. All rights reserved.", "Compute the %(name)s of values.", "Get {klass}."],
)
def test_no_use_for_empty_licences_and_templates(raw):
    assert parse_docstring(raw) is None


def test_doctests_and_their_output_are_gone():
    doc = parse_docstring("Add numbers.\n\nIn words:\n\n>>> add(1, 2)\n3\n... \n\nAnd that is all.")
    assert doc is not None
    assert doc.description == "In words: And that is all."


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (":class:`~a.b.Thing` is", "a.b.Thing is"),
        ("``code`` and `name`", "code and name"),
        ("before\n.. note:: x\nafter", "before after"),
        (":py:meth:`title <real.target>` here", "title here"),
    ],
)
def test_plain_words(raw, expected):
    assert plain(raw) == expected


@given(st.lists(st.from_regex(r"[A-Z][a-z]{2,8} [a-z]{2,8}\.", fullmatch=True), min_size=1, max_size=6))
def test_sentences_are_found_again(parts):
    assert sentences(" ".join(parts)) == parts


@given(st.text(max_size=400))
def test_any_text_is_taken(raw):
    doc = parse_docstring(raw)
    assert doc is None or "\n" not in doc.summary + doc.description
