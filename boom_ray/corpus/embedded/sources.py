"""Where the embedded text comes from: source files of installed packages, chosen the same way everywhere."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boom_ray.corpus.embedded.choose import ranks

STDLIB = "stdlib"
SKIPPED = frozenset(
    {"test", "tests", "testing", "conformance", "conftest", "estimator_checks", "benchmarks", "examples", "_examples"}
    | {"site-packages", "dist-packages", "_vendor", "_vendored", "vendor", "externals", "extern", "thirdparty_files"}
    | {"idlelib", "lib2to3", "ensurepip", "turtledemo", "pydoc_data", "generated", "__pycache__"}
)
SMALLEST, LARGEST = 400, 400_000  # bytes; shorter files hold no prose, longer ones are generated tables


@dataclass(frozen=True)
class Source:
    """One source file.

    Attributes:
        path: the file.
        module: its dotted name, package first.
    """

    path: Path
    module: str


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        name: as imported, or ``stdlib``.
        version: what decides its files.
        root: its directory.
    """

    name: str
    version: str
    root: Path


def find_package(name: str) -> Package | None:
    """The installed package of that import name, found without importing it; None when there is none."""
    if name == STDLIB:
        return Package(name, platform.python_version(), Path(sysconfig.get_paths()["stdlib"]))
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        return None
    version = _version(name)
    return Package(name, version, Path(next(iter(found.submodule_search_locations)))) if version else None


def package_files(package: Package, budget: int, seed: int) -> list[Source]:
    """Source files of a package, at most ``budget`` bytes of them.

    A package that has more gives the files with the smallest keyed hashes of their module names, so the choice depends
    on the package's content only. Tests, vendored copies and generated tables are left out.

    Returns:
        Files sorted by module name.
    """
    sources = [source for path in package.root.rglob("*.py") if (source := _source(path, package)) is not None]
    sources.sort(key=lambda source: source.module)
    if not sources:
        return []
    order = np.argsort(ranks([source.module for source in sources], seed, "files"), kind="stable")
    sizes = np.array([source.path.stat().st_size for source in sources])[order]
    return [sources[index] for index in sorted(order[np.cumsum(sizes) <= budget])]


def _version(name: str) -> str | None:
    """Version of the distribution that brings a package, e.g. of scikit-learn for sklearn."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        distributions = importlib.metadata.packages_distributions().get(name)
        return importlib.metadata.version(distributions[0]) if distributions else None


def _source(path: Path, package: Package) -> Source | None:
    parts = path.relative_to(package.root).with_suffix("").parts
    if SKIPPED.intersection(parts) or any(part.startswith(("test_", "_test")) for part in parts):
        return None
    if not SMALLEST <= path.stat().st_size <= LARGEST:
        return None
    names = parts[:-1] if parts[-1] == "__init__" else parts
    return Source(path, ".".join((package.name, *names)))
