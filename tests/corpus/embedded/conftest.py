"""Invented packages with enough text for every set; the words are drawn by hash, so that no two functions are alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from boom_ray.corpus.embedded.sources import Package

STARTS = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe")
WORDS = [start + end for start in STARTS for end in ("rat", "sin", "tol", "vem")]
ERRORS = ("ValueError", "KeyError", "OSError", "TypeError")


def words(name: str, count: int) -> str:
    """Pseudo-words that depend on the name alone."""
    marks = hashlib.blake2b(name.encode(), digest_size=count).digest()
    return " ".join(WORDS[mark % len(WORDS)] for mark in marks)


def function(name: str) -> str:
    summary = words(f"{name} summary", 7).capitalize()
    return f'''
def {name}(first, second):
    """{summary}.

    {words(name + " text", 12).capitalize()}. {words(name + " more", 12).capitalize()}.

    Args:
        first: {words(name + " first", 9)}
        second: {words(name + " second", 9)}
    """
    # {words(name + " comment", 8)}
    total = {words(name + " code", 6).replace(" ", " + ")}
    result = [total, first, second]

    if not result:
        raise {ERRORS[WORDS.index(words(name, 1)) % 4]}("{words(name + " message", 8)}")
    return result
'''


def write_package(root: Path, name: str, modules: int = 6, functions: int = 20) -> Package:
    """A package of ``modules`` modules of ``functions`` functions each, and a test folder that must not be read."""
    folder = root / name
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for module in range(modules):
        names = [f"{name}_part{module}_job{index}" for index in range(functions)]
        (folder / f"part{module}.py").write_text("\n".join(map(function, names)))
    (folder / "tests" / "test_part.py").write_text(function("test_only") * 3)
    return Package(name, "1.0", folder)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    """Two packages to train on and one never trained on."""
    root = tmp_path_factory.mktemp("packages")
    return {name: write_package(root, name) for name in ("alpha", "beta", "gamma")}
